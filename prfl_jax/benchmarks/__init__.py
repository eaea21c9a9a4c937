"""Benchmarks: kernels, whole rounds beside other simulators, roofline, devices; comparison of commits; kill test.

`scripts/benchmark.py` is the command. Nothing is imported here: the PyTorch process
must not load JAX.
"""

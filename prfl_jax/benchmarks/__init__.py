"""Benchmarks of the device side: `kernels` times it, beside PyTorch (`torch_worker`) where that is installed.

`scripts/benchmark.py` is the command. Nothing is imported here: the PyTorch process
must not load JAX.
"""

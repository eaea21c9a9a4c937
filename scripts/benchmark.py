"""Runs one suite of benchmarks, prints its table and writes one JSON file.

    python scripts/benchmark.py --suite=kernels --out=kernels.json
    python scripts/benchmark.py --suite=peers --out=peers.json
    python scripts/benchmark.py --suite=roofline --out=roofline.json
    python scripts/benchmark.py --suite=devices --out=devices.json
    python scripts/benchmark.py --suite=axes --out=axes.json
    python scripts/benchmark.py --suite=widths --out=widths.json
    python scripts/benchmark.py --suite=intervals --out=intervals.json

`kernels`: local rounds of ten clients on Conv2 against a PyTorch loop over the same clients (`pip install -e
'.[bench]'`; without it the table says so), MaskFedAvg against reading the clients' models once, pruning levels
of all weights, dispatch, delta split and evaluation. Two to five minutes on two CPU cores.
`peers`: whole rounds of FedAvg on three workloads, in other simulators and in prfl_jax. Each simulator runs in
a virtual environment of its own, which is made from `scripts/peers/` the first time (some GB). About ten
minutes.
`roofline`: the same kernels beside the least time that this machine's matmul peak and memory bandwidth allow.
`devices`: windows with few and with many arrivals, on one device and on several (of a CPU: its cores).
`axes`: clients trained one after another or in groups, on arrival or ahead of it; on accelerators also by
precision.
`widths`: client updates of sub-models of channels, at full size and in narrower networks; compiling takes some minutes.
`intervals`: what a round costs the host beside training: with a decision after every window, after 50, and without.

Nothing else should run on the machine. The exit code is 0 whether bounds are met or MISSED. `--size=small` is a smoke
test that checks no bound.
"""

from __future__ import annotations

import prfl_jax.system.early  # noqa: F401  # isort: skip  (before what takes long)

from absl import flags

from prfl_jax.benchmarks.suite import Request, run_suite
from prfl_jax.config import cli

_SUITES = "kernels | peers | roofline | devices | axes | widths | intervals"
_SUITE = flags.DEFINE_string("suite", None, f"the suite: {_SUITES}")
_OUT = flags.DEFINE_string("out", None, "the JSON file to write")
_REPEATS = flags.DEFINE_integer("repeats", 7, "measured runs of each kernel")
_SIZE = flags.DEFINE_string("size", "full", "size of the workload: full | small")
_WORKLOADS = flags.DEFINE_list("workloads", [], "peers: the workloads, W1, W2, W3; by default all")
_PEERS = flags.DEFINE_list("peers", [], "peers: the simulators beside the PyTorch loop; by default all")
_ENVS = flags.DEFINE_string("envs", None, "peers: folder of their environments, by default ~/.cache/prfl_jax/peers")
_DATA = flags.DEFINE_string("data", "random", "peers: random | real images")


def main() -> int:
    return run_suite(
        Request(
            suite=_SUITE.value,
            out=_OUT.value,
            repeats=_REPEATS.value,
            size=_SIZE.value,
            workloads=_WORKLOADS.value,
            peers=_PEERS.value,
            envs=_ENVS.value,
            data=_DATA.value,
        )
    )


if __name__ == "__main__":
    cli.run(main)

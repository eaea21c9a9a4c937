"""Times the device side beside what it should be measured by, and writes one JSON file.

    python scripts/benchmark.py --suite=kernels --out=kernels.json

The suite `kernels`: the local rounds of ten clients on Conv2 against a PyTorch loop
over the same clients (`pip install -e '.[bench]'`; without it the table says so),
MaskFedAvg against reading the clients' models once, the levels of all weights, dispatch,
delta split and evaluation. It takes two to five minutes on two CPU cores, wants them
to itself, and leaves with code 0 whether bounds are kept or MISSED. `--size=small` is a
smoke test of seconds, in which nothing is judged.
"""

from __future__ import annotations

from absl import flags

from prfl_jax import cli
from prfl_jax.bench.suite import run_suite

_SUITE = flags.DEFINE_string("suite", None, "which benchmarks: kernels")
_OUT = flags.DEFINE_string("out", None, "the JSON file to write")
_REPEATS = flags.DEFINE_integer("repeats", 7, "runs of each kernel that count")
_SIZE = flags.DEFINE_string("size", "full", "full | small")


def main() -> int:
    return run_suite(_SUITE.value, _OUT.value, _REPEATS.value, _SIZE.value)


if __name__ == "__main__":
    cli.run(main)

"""Kills a small run at random moments, resumes it until it ends, and compares it with an uninterrupted run.

    python scripts/kill_test.py --out=kills.json
    python scripts/kill_test.py --kills=50 --terminations=20 --seed=0 --out=kills.json

Half of the SIGKILLs come while a checkpoint is being written. Takes ten minutes on two CPU cores. The exit code
is 1 if a report, a record or a model differs by a bit, or a process shows a traceback.
"""

from __future__ import annotations

import prfl_jax.system.early  # noqa: F401  # isort: skip  (before what takes long)

from absl import flags

from prfl_jax.benchmarks.kills import Request, run_kills
from prfl_jax.config import cli

_OUT = flags.DEFINE_string("out", None, "the JSON file to write")
_KILLS = flags.DEFINE_integer("kills", 50, "number of SIGKILLs", lower_bound=0)
_TERMINATIONS = flags.DEFINE_integer("terminations", 20, "number of SIGTERMs", lower_bound=0)
_SEED = flags.DEFINE_integer("seed", 0, "seed of the random moments")


def main() -> int:
    return run_kills(Request(_OUT.value, _KILLS.value, _TERMINATIONS.value, _SEED.value))


if __name__ == "__main__":
    cli.run(main)

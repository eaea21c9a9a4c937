"""Compares defences against an attack: two of ten clients flip the signs of their updates.

    python scripts/defences.py --seeds=3 --out=results/defences

Runs plain averaging and every defence, with and without the attack: Conv2 of half width on MNIST by writer
(`scripts/prepare_data.py`), FedAvg and PR-FL. A run whose report exists under --out is not repeated, and an
interrupted one is resumed. A run takes about half a minute on two CPU cores; there are 18 for each method and
seed. Ends with a table, `defences.md`.
"""

from __future__ import annotations

import prfl_jax.system.early  # noqa: F401  # isort: skip  (before what takes long)

from absl import flags

from prfl_jax.config import cli
from prfl_jax.studies.defences import ROUNDS, defences
from prfl_jax.system.files import user_path

_METHODS = flags.DEFINE_list("methods", list(ROUNDS), f"methods to run, among {', '.join(ROUNDS)}")
_SEEDS = flags.DEFINE_integer("seeds", 1, "number of seeds (0, 1, ...) of each run")
_OUT = flags.DEFINE_string("out", "runs/defences", "folder to write to")
_WORK = flags.DEFINE_string("work", "runs/defences-work", "folder of unfinished runs")
_SIZE = flags.DEFINE_string("size", "full", "full | small (takes seconds; its numbers mean nothing)")


def main() -> int:
    out, work = user_path("--out", _OUT.value), user_path("--work", _WORK.value)
    return defences(_METHODS.value, _SEEDS.value, out, work, _SIZE.value)


if __name__ == "__main__":
    cli.run(main)

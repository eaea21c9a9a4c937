"""Trains one experiment against its simulated network, and compares it where the config says so.

    python scripts/train.py --config=configs/quickstart.py --workdir=runs/quickstart

Goes on where it stopped when called again with the same `--workdir`.
"""

from __future__ import annotations

from absl import flags

from prfl_jax import cli
from prfl_jax.training import train

_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run; default runs/CONFIG-SEED-HASH")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "print what the run would need, and compute nothing")


def main(config: object) -> int:
    return train(config, flags.FLAGS.config, _WORKDIR.value, dry_run=_DRY_RUN.value)


if __name__ == "__main__":
    cli.run_with_config(main)

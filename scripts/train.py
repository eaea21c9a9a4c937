"""Trains one experiment against its simulated network, and compares it where the config says so.

    python scripts/train.py --config=configs/quickstart.py --workdir=runs/quickstart

Goes on where it stopped when called again with the same `--workdir`. Several processes, on one machine
or many, make one run together when each is given the same command and its own `--process`:

    python scripts/train.py --config=... --workdir=... --coordinator=HOST:PORT --processes=2 --process=0

Several experiments in one process, as one more mapped axis, so that small models fill a large device:

    python scripts/train.py --config=... --workdir=... --seeds=8 --vary=local.lr=0.1,0.25,0.5
"""

from __future__ import annotations

import prfl_jax.system.early  # noqa: F401  # isort: skip  (before what takes long)

from absl import flags

from prfl_jax.config import cli
from prfl_jax.runtime.training import ProcessGroup, Variants, train
from prfl_jax.system.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run; default runs/CONFIG-SEED-HASH")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "print what the run would need, and compute nothing")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "several processes: HOST:PORT of the first one")
_PROCESSES = flags.DEFINE_integer("processes", 1, "several processes: how many")
_PROCESS = flags.DEFINE_integer("process", 0, "several processes: which this is, from 0; the first reads and writes")
_TENSORBOARD = flags.DEFINE_bool("tensorboard", False, "write TensorBoard event files into the run's folder too")
_SEEDS = flags.DEFINE_integer("seeds", 1, "so many seeds at once, from the config's own on, each in a folder seedK")
_VARY = flags.DEFINE_string("vary", None, "KEY=VALUE,VALUE,...: an experiment for each value, all at once")


def main(config: object) -> int:
    together = None
    if _COORDINATOR.value is not None:
        together = ProcessGroup(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    elif _PROCESSES.value != 1 or _PROCESS.value != 0:
        raise UserError("--processes and --process: allowed with --coordinator=HOST:PORT")
    variants = Variants(_SEEDS.value, _VARY.value)
    return train(
        config, flags.FLAGS.config, _WORKDIR.value, dry_run=_DRY_RUN.value, together=together, variants=variants,
        tensorboard=_TENSORBOARD.value,
    )  # fmt: skip


if __name__ == "__main__":
    cli.run_with_config(main)

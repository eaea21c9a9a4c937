"""Trains one experiment on its simulated network, and the strategies that the config compares it with.

    python scripts/train.py --config=configs/quickstart.py --workdir=runs/quickstart

The same command resumes a run that was stopped. Several processes, on one machine or on many, make one run
together: each gets the same command and its own number, `--process`.

    python scripts/train.py --config=... --workdir=... --coordinator=HOST:PORT --processes=2 --process=0

Several experiments run in one process as one more mapped axis, so that small models fill a large device:

    python scripts/train.py --config=... --workdir=... --seeds=8 --vary=local.lr=0.1,0.25,0.5
"""

from __future__ import annotations

import prfl_jax.system.early  # noqa: F401  # isort: skip  (before what takes long)

from absl import flags

from prfl_jax.config import cli
from prfl_jax.runtime.training import ProcessGroup, Variants, train
from prfl_jax.system.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run; by default runs/CONFIG-SEED-HASH")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "print what the run would need, and train nothing")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "several processes: HOST:PORT of process 0")
_PROCESSES = flags.DEFINE_integer("processes", 1, "several processes: their number")
_PROCESS = flags.DEFINE_integer("process", 0, "several processes: the number of this one; 0 reads and writes")
_TENSORBOARD = flags.DEFINE_bool("tensorboard", False, "also write TensorBoard event files into the run's folder")
_SEEDS = flags.DEFINE_integer("seeds", 1, "run N seeds at once, from the config's seed on, each in a folder seedK")
_VARY = flags.DEFINE_string("vary", None, "KEY=VALUE,VALUE,...: run one experiment for each value, all at once")


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

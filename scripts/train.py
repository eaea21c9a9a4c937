"""Trains one experiment against its simulated network, and compares it where the config says so.

    python scripts/train.py --config=configs/quickstart.py --workdir=runs/quickstart

Goes on where it stopped when called again with the same `--workdir`. Several processes, on one machine
or many, make one run together when each is given the same command and its own `--process`:

    python scripts/train.py --config=... --workdir=... --coordinator=HOST:PORT --processes=2 --process=0
"""

from __future__ import annotations

from absl import flags

from prfl_jax import cli
from prfl_jax.errors import UserError
from prfl_jax.training import Together, train

_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run; default runs/CONFIG-SEED-HASH")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "print what the run would need, and compute nothing")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "several processes: HOST:PORT of the first one")
_PROCESSES = flags.DEFINE_integer("processes", 1, "several processes: how many")
_PROCESS = flags.DEFINE_integer("process", 0, "several processes: which this is, from 0; the first reads and writes")


def main(config: object) -> int:
    together = None
    if _COORDINATOR.value is not None:
        together = Together(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    elif _PROCESSES.value != 1 or _PROCESS.value != 0:
        raise UserError("--processes and --process: allowed with --coordinator=HOST:PORT")
    return train(config, flags.FLAGS.config, _WORKDIR.value, dry_run=_DRY_RUN.value, together=together)


if __name__ == "__main__":
    cli.run_with_config(main)

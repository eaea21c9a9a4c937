"""Searches the settings of one experiment: a grid, random values, or values that TPE proposes.

    python scripts/sweep.py --config=configs/quickstart.py --space=configs/sweeps/rate_and_steps.py --sampler=grid

Each trial is a run in a folder of its own under --out; --trials is the number of trials of the whole sweep. The
same command resumes the sweep. Several shells, or --workers=N, share the trials; several machines share them
through --storage, a database of Optuna that all can reach (postgresql://..., mysql://...). When a worker is
killed, another one resumes its trial from its last checkpoint. The sweep ends with the best settings, the
importance of each key and `sweep.json`.
"""

from __future__ import annotations

import prfl_jax.system.early  # noqa: F401  # isort: skip  (before what takes long)

from absl import flags

from prfl_jax.config import cli
from prfl_jax.sweep.run import default_out, run_sweep
from prfl_jax.sweep.settings import Sweep
from prfl_jax.system.errors import UserError
from prfl_jax.system.files import user_path

_SPACE = flags.DEFINE_string(
    "space", None, "the file of the space: get_space() returns values or a range for each config key"
)
_TRIALS = flags.DEFINE_integer("trials", None, "number of trials of the whole sweep; by default the whole grid")
_OUT = flags.DEFINE_string("out", None, "folder of the sweep; by default runs/sweep-CONFIG-SPACE")
_STORAGE = flags.DEFINE_string("storage", None, "a database URL of Optuna; by default SQLite in --out")
_SAMPLER = flags.DEFINE_string("sampler", "tpe", "grid | random | tpe")
_PRUNER = flags.DEFINE_string("pruner", "none", "none | asha | hyperband: how hopeless trials are stopped early")
_OBJECTIVE = flags.DEFINE_string(
    "objective", None, "the task's metric at the end, by name (accuracy, perplexity) | time_to:LEVEL (simulated s); "
    "by default the metric"
)  # fmt: skip
_WORKERS = flags.DEFINE_integer("workers", 1, "number of worker processes on this machine")
_HEARTBEAT_S = flags.DEFINE_integer(
    "heartbeat_s", 60, "seconds between heartbeats; a worker is lost after three times as long without one"
)
_RETRIES = flags.DEFINE_integer("retries", 5, "how often a trial is repeated whose worker was lost")


def main(config: object) -> int:
    if _SPACE.value is None:
        raise UserError("--space is missing: give a file, as in --space=configs/sweeps/rate_and_steps.py")
    return run_sweep(
        config,
        Sweep(
            space=_SPACE.value,
            trials=_TRIALS.value,
            out=user_path("--out", _OUT.value) if _OUT.value else default_out(flags.FLAGS.config, _SPACE.value),
            storage=_STORAGE.value,
            sampler=_SAMPLER.value,
            pruner=_PRUNER.value,
            objective=_OBJECTIVE.value,
            workers=_WORKERS.value,
            heartbeat_s=_HEARTBEAT_S.value,
            retries=_RETRIES.value,
        ),
    )


if __name__ == "__main__":
    cli.run_with_config(main)

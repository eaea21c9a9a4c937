"""Runs a sweep: starts its workers on this machine and prints its outcome (`scripts/sweep.py`)."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prfl_jax.config.canonical import canonical
from prfl_jax.startup import before_jax
from prfl_jax.sweep.settings import WORKER, Objective, Sweep
from prfl_jax.system.errors import UserError
from prfl_jax.system.files import check_folder
from prfl_jax.tasks import find_task


def run_sweep(base: Any, sweep: Sweep) -> int:
    """Makes the trials that are missing; returns 0, or 1 where a trial failed.

    Args:
      base: the config that every trial starts from, validated.

    Raises:
      UserError: a flag, the space or the database is not allowed.
    """
    objective = Objective.of(sweep.objective, find_task(base.task.name).metric)
    sweep.check(objective.metric)
    try:
        import optuna  # noqa: F401
    except ModuleNotFoundError:
        raise UserError("scripts/sweep.py: needs Optuna; pip install -e '.[sweep]'") from None
    from prfl_jax.sweep.study import quiet

    with quiet():
        return _run(_prepared(base, objective), sweep, objective)


def _run(base: Any, sweep: Sweep, objective: Objective) -> int:
    from prfl_jax.sweep import outcome
    from prfl_jax.sweep.space import Space
    from prfl_jax.sweep.study import open_study, trials_wanted, work
    from prfl_jax.sweep.trial import TrialRunner

    space = Space.read(sweep.space)
    trials_wanted(sweep, space)  # before anything is made
    check_folder("--out", sweep.out)
    study = open_study(sweep, base, space, objective)
    before_jax()
    from prfl_jax.system.signals import Interrupted, InterruptGuard, leave

    with InterruptGuard(shlex.join([sys.executable, *sys.argv])) as guard:
        others = _start_others(sweep)
        run = TrialRunner(base, space, objective, sweep.out, guard, progress=sweep.workers == 1)
        try:
            work(study, run, guard)
        except Interrupted as signal:
            for other in others:
                other.terminate()
            for other in others:
                other.wait()
            print(f"\n{signal}: trials are saved in {sweep.out}; to resume: {guard.again}", file=sys.stderr)
            leave(128 + signal.signum)
    for other in others:
        other.wait()
    found = outcome.write(study, sweep, objective)
    if not _is_other():
        print(f"\n{outcome.table(found)}\n\n{sweep.out}/sweep.json")
    return 1 if any(entry["error"] for entry in found["trials"]) else 0


def _prepared(base: Any, objective: Objective) -> Any:
    """The config without strategies to compare with, and the objective's level among its thresholds."""
    base = base.copy_and_resolve_references()
    base.compare = ()
    levels = set(canonical(base)["eval.thresholds"])
    if objective.level is not None and objective.level not in levels:
        base.eval.thresholds = tuple(sorted({*levels, objective.level}))
    return base.lock()


def _is_other() -> bool:
    return WORKER in os.environ


def _start_others(sweep: Sweep) -> Sequence[subprocess.Popen[bytes]]:
    """The other workers of this machine: the same command again."""
    if _is_other():
        return ()
    return [
        subprocess.Popen([sys.executable, *sys.argv], env={**os.environ, WORKER: str(number)})
        for number in range(1, sweep.workers)
    ]


def default_out(config: str, space: str) -> Path:
    """`runs/sweep-CONFIG-SPACE`."""
    return Path("runs") / f"sweep-{Path(config).stem}-{Path(space).stem}"

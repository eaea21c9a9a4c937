"""The Optuna study of a sweep: plans its trials in a database, and lets workers take them.

All trials are planned at the start, as waiting trials: the whole grid, random values drawn by the trial's number, or,
for TPE, trials whose values are chosen when they begin. A worker takes the next one that waits. So any number of
workers, on one machine or several, make exactly the trials that were asked for. A trial whose worker has died is
failed when its heartbeat is old, and planned again in the same folder.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import optuna
from optuna.trial import TrialState

from prfl_jax.config.canonical import config_hash
from prfl_jax.report.steps import step_at
from prfl_jax.sweep.settings import WORKER, Objective, Sweep
from prfl_jax.sweep.space import Space
from prfl_jax.sweep.trial import Failed, Surplus, TrialRunner, first_number, planned
from prfl_jax.system.errors import UserError, first_line
from prfl_jax.system.files import user_path
from prfl_jax.system.signals import Interrupted, InterruptGuard

POLL_S = 1.0
STARTUP = 10  # trials of TPE that are random


def open_study(sweep: Sweep, base: Any, space: Space, objective: Objective) -> optuna.Study:
    """The study, made where there is none, with all its trials planned.

    Raises:
      UserError: the database cannot be used, or holds another sweep.
    """
    retry = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=sweep.retries)
    url = _at_home(sweep.storage) or f"sqlite:///{sweep.out.absolute() / 'sweep.db'}"
    name = "sweep" if sweep.storage is None else f"{Path(sweep.space).stem}-{config_hash(base)[:12]}"
    with filelock.FileLock(sweep.out / ".sweep.lock"):
        try:
            storage = optuna.storages.RDBStorage(
                url,
                # workers wait for one another's writes
                engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None,
                heartbeat_interval=sweep.heartbeat_s,
                grace_period=3 * sweep.heartbeat_s,
                heartbeat_stale_trial_callback=retry,
            )
            study = optuna.create_study(
                storage=storage, study_name=name, direction=objective.direction, load_if_exists=True,
                sampler=_sampler(base.seed), pruner=_pruner(sweep, base),
            )  # fmt: skip
        except Exception as error:  # of SQLAlchemy, alembic or a database's own driver, whose kinds are many
            said = first_line(error)[:200]
            raise UserError(f"--storage={url}: cannot be used ({said}); allowed is a database URL of Optuna") from None
        _identify(study, sweep, base, space, objective)
        _plan(study, sweep, base, space)
    return study


def _at_home(url: str | None) -> str | None:
    """The address of a file below `~`."""
    begin, found, rest = (url or "").partition(":///~")
    return f"{begin}:///{user_path('--storage', f'~{rest}')}" if found else url


def _identify(study: optuna.Study, sweep: Sweep, base: Any, space: Space, objective: Objective) -> None:
    """Raises UserError where the database holds another sweep under the same name."""
    mine = {
        "--config": config_hash(base), "--space": space.to_json(), "--sampler": sweep.sampler,
        "--pruner": sweep.pruner, "--objective": sweep.judged_by(objective.metric),
    }  # fmt: skip
    theirs = study.user_attrs.get("sweep")
    if theirs is None:
        study.set_user_attr("sweep", mine)
        return
    for flag, value in mine.items():
        if theirs.get(flag) != value:
            raise UserError(
                f"{flag}: --out={sweep.out} holds a sweep with another one ({str(theirs.get(flag))[:80]}); "
                "allowed is the same, or another --out"
            )


def trials_wanted(sweep: Sweep, space: Space) -> tuple[list[dict[str, Any]], int]:
    """(the grid, if it is one; trials in all).

    Raises:
      UserError: more than the grid has.
    """
    grid = space.grid() if sweep.sampler == "grid" else []
    wanted = len(grid) if sweep.trials is None else sweep.trials
    if sweep.sampler == "grid" and wanted > len(grid):
        raise UserError(f"--trials={wanted}: allowed is at most {len(grid)}, the size of the grid")
    return grid, wanted


def _plan(study: optuna.Study, sweep: Sweep, base: Any, space: Space) -> None:
    """Adds waiting trials up to the number asked for."""
    trials = study.get_trials(deepcopy=False)
    there = sum(planned(trial) and first_number(trial) == trial.number for trial in trials)
    grid, wanted = trials_wanted(sweep, space)
    if wanted < there:
        raise UserError(f"--trials={wanted}: allowed is at least {there}, which this sweep has already")
    for number in range(there, wanted):
        if sweep.sampler == "grid":
            values = grid[number]
        elif sweep.sampler == "random" or number < STARTUP:
            values = space.draw(base.seed, number)
        else:
            values = {}
        study.enqueue_trial(values)


def _sampler(seed: int) -> optuna.samplers.BaseSampler:
    """TPE; the trials of a grid and random ones have their values already. Repeatable with one worker only."""
    mine = seed + int(os.environ.get(WORKER, 0))
    # constant_liar: a setting that another worker is running is not chosen again
    return optuna.samplers.TPESampler(seed=mine % 2**32, n_startup_trials=STARTUP, constant_liar=True)


def _pruner(sweep: Sweep, base: Any) -> optuna.pruners.BasePruner:
    """By the metric at the steps of evaluations; with a horizon, trials are compared from a sixteenth of it on."""
    horizon = None if base.horizon_s is None else max(16, step_at(base.horizon_s, base.eval_every_s))
    if sweep.pruner == "asha":
        least: Any = "auto" if horizon is None else horizon // 16
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=least, reduction_factor=4)
    if sweep.pruner == "hyperband":
        most: Any = "auto" if horizon is None else horizon
        return optuna.pruners.HyperbandPruner(
            min_resource=1 if horizon is None else horizon // 16, max_resource=most, reduction_factor=3
        )
    return optuna.pruners.NopPruner()


def work(study: optuna.Study, run: TrialRunner, guard: InterruptGuard) -> None:
    """Takes trials until none waits and none is under way anywhere.

    Raises:
      Interrupted: a signal came; the trial under way was saved and planned again.
    """
    awaited: dict[int, float] = {}  # trial -> when it was first seen under way
    while True:
        guard.check()
        optuna.storages.fail_stale_trials(study)
        states = [trial.state for trial in study.get_trials(deepcopy=False)]
        if TrialState.WAITING in states:
            try:
                study.optimize(run, n_trials=1, catch=(Failed, Surplus))
            except Interrupted:
                _plan_again(study, run.current)
                raise
        elif TrialState.RUNNING in states:
            _mark_silent(study, awaited)
            time.sleep(POLL_S)  # another worker's; if that one dies, its trial is ours
        else:
            return


def _mark_silent(study: optuna.Study, awaited: dict[int, float]) -> None:
    """Records one heartbeat for each trial that has been under way for a heartbeat's interval and longer.

    A worker that dies between taking a trial and its first heartbeat leaves one that never counts as lost: Optuna
    looks at those only that have a heartbeat. With this one it is lost when no other follows. A live worker's own
    beats hide it, and a dead one's trial is found at most a grace period later.
    """
    storage: Any = study._storage
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        since = awaited.setdefault(trial._trial_id, time.monotonic())
        if time.monotonic() - since > storage.get_heartbeat_interval():
            storage.record_heartbeat(trial._trial_id)
            awaited[trial._trial_id] = float("inf")  # once is enough


def _plan_again(study: optuna.Study, number: int | None) -> None:
    trials = study.get_trials(deepcopy=False)
    if number is not None and trials[number].state == TrialState.FAIL:
        optuna.storages.RetryHeartbeatStaleTrialCallback()(study, trials[number])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Optuna's own lines are left out, and that what is used here (heartbeats, retries) is called experimental."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)

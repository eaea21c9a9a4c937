"""Runs one trial of a sweep in a folder of its own; a retry resumes it there."""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial

from prfl_jax.report import read_metrics
from prfl_jax.report.names import headline_name
from prfl_jax.report.steps import step_at
from prfl_jax.sweep.settings import Objective
from prfl_jax.sweep.space import Space
from prfl_jax.system.errors import UserError
from prfl_jax.system.signals import Interrupted, InterruptGuard


class Surplus(Exception):
    """Optuna made a trial that was not planned: others took the last one."""


class Failed(Exception):
    """A trial that cannot be run; the sweep continues without it."""


def planned(trial: FrozenTrial) -> bool:
    """Whether a trial is one of the sweep's, or a retry of one."""
    return "fixed_params" in trial.system_attrs


def first_number(trial: FrozenTrial) -> int:
    """The number of the trial whose folder this one works in: its own, or that of the one it retries."""
    number = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return int(trial.number if number is None else number)


def _suggest(trial: optuna.Trial, key: str, form: BaseDistribution) -> Any:
    if isinstance(form, FloatDistribution):
        return trial.suggest_float(key, form.low, form.high, step=form.step, log=form.log)
    if isinstance(form, IntDistribution):
        return trial.suggest_int(key, form.low, form.high, step=form.step, log=form.log)
    assert isinstance(form, CategoricalDistribution)
    return trial.suggest_categorical(key, form.choices)


def folder_name(number: int) -> str:
    return f"trial_{number:05d}"


class TrialRunner:
    """Optuna's objective function.

    Args:
      base: the config that values are put into.
      out: the sweep's folder.
      guard: hears of signals.
      progress: show each run's bar.

    Attributes:
      current: number of the trial under way.
    """

    def __init__(
        self, base: Any, space: Space, objective: Objective, out: Path, guard: InterruptGuard, progress: bool
    ) -> None:
        self._base, self._space, self._objective = base, space, objective
        self._out, self._guard, self._progress = out, guard, progress
        self.current: int | None = None

    def __call__(self, trial: optuna.Trial) -> float:
        """Runs it.

        Raises:
          optuna.TrialPruned: it was given up, or is not finite.
          Failed, Surplus, Interrupted.
        """
        frozen = trial.study.get_trials(deepcopy=False)[trial.number]
        if not planned(frozen):
            raise Surplus
        self.current, first = trial.number, first_number(frozen)
        values = {key: _suggest(trial, key, form) for key, form in self._space.keys.items()}
        name = folder_name(first)
        trial.set_user_attr("folder", name)
        said = ", ".join(f"{key}={value}" for key, value in values.items())
        again = f" (trial {first} again)" if first != trial.number else ""
        print(f"trial {trial.number}{again}: {said}", file=sys.stderr, flush=True)
        try:
            value = self._run(trial, self._space.config(self._base, values), self._out / name)
        except (optuna.TrialPruned, Interrupted):
            raise
        except UserError as error:
            trial.set_user_attr("error", str(error))
            raise Failed(str(error)) from None
        except Exception as error:  # whatever it is, the other trials are not to be lost by it
            (self._out / f"{name}_error.txt").write_text(traceback.format_exc())
            said = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
            trial.set_user_attr("error", f"{said} (see {name}_error.txt)")
            raise Failed(said) from None
        print(f"trial {trial.number}: {value:g}", file=sys.stderr, flush=True)
        return value

    def _run(self, trial: optuna.Trial, config: Any, folder: Path) -> float:
        import jax

        from prfl_jax.runtime.experiment import Experiment

        watch = self._watch(trial, config)
        metrics = folder / "metrics.jsonl"
        if metrics.exists():
            for record in read_metrics(metrics):
                watch(record)
        try:
            with self._guard.nothing_to_save():
                experiment = Experiment(config)
            report = experiment.run(folder, guard=self._guard, progress=self._progress, watch=watch).report
        finally:
            jax.clear_caches()  # a process has room for some hundred programs
            gc.collect()
        trial.set_user_attr("model", headline_name(report))
        value = self._objective.value(report)
        if value is None:
            raise optuna.TrialPruned("its loss is not finite")
        return value

    def _watch(self, trial: optuna.Trial, config: Any) -> Callable[[dict[str, Any]], None]:
        """Tells Optuna of each evaluation; raises TrialPruned where the trial is given up.

        Steps are those of the base's grid, by which trials with other grids are compared too.
        """
        reported: set[int] = set()

        def watch(record: dict[str, Any]) -> None:
            if record["kind"] != "eval" or (step := step_at(record["t_s"], self._base.eval_every_s)) in reported:
                return
            reported.add(step)
            trial.report(self._objective.midway(record[config.eval.model][self._objective.metric.name]), step)
            if trial.should_prune():
                raise optuna.TrialPruned(f"given up after {record['t_s']:g} simulated s")

        return watch

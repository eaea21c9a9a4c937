"""`Sweep`: the checked flags of a sweep."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

from prfl_jax.report.totals import threshold_key
from prfl_jax.system.errors import UserError
from prfl_jax.tasks import Metric, is_level, levels_text

SAMPLERS = ("grid", "random", "tpe")
WORKER = "PRFL_JAX_SWEEP_WORKER"  # set to its number in the workers that another one started
PRUNERS = ("none", "asha", "hyperband")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The flags of scripts/sweep.py.

    Attributes:
      space: the file of the space.
      trials: trials in all; None: a grid's size, else not allowed.
      out: the sweep's folder.
      storage: an Optuna database URL; None: SQLite in the folder.
      sampler: how values are chosen.
      pruner: which trials are given up.
      objective: the name of the task's metric, for its value at the end, or `time_to:LEVEL`, simulated s; None: the
        metric.
      workers: processes on this machine.
      heartbeat_s: a worker that was not heard of for three times as long is lost.
      retries: how often a lost trial is begun again.
    """

    space: str
    trials: int | None
    out: Path
    storage: str | None = None
    sampler: str = "tpe"
    pruner: str = "none"
    objective: str | None = None
    workers: int = 1
    heartbeat_s: int = 60
    retries: int = 5

    def judged_by(self, metric: Metric) -> str:
        """The objective as a flag, given or not."""
        return self.objective or metric.name

    def check(self, metric: Metric) -> None:
        """Raises UserError for a value that is not allowed, with the task's metric."""
        for flag, value, known in (("sampler", self.sampler, SAMPLERS), ("pruner", self.pruner, PRUNERS)):
            if value not in known:
                raise UserError(f"--{flag}={value}: allowed is {', '.join(known)}")
        if self.trials is not None and self.trials < 1:
            raise UserError(f"--trials={self.trials}: allowed is a whole number of at least 1")
        if self.trials is None and self.sampler != "grid":
            raise UserError(
                f"--trials is missing: allowed with --sampler={self.sampler} is a whole number of at least 1"
            )
        for flag, number in (("workers", self.workers), ("heartbeat_s", self.heartbeat_s)):
            if number < 1:
                raise UserError(f"--{flag}={number}: allowed is a whole number of at least 1")
        if self.retries < 0:
            raise UserError(f"--retries={self.retries}: allowed is a whole number of at least 0")
        Objective.of(self.objective, metric)


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a trial is judged by.

    Attributes:
      metric: the headline metric of the task.
      level: of which the time is judged, less being better; None: the metric at the end, in its own direction.
    """

    metric: Metric
    level: float | None = None

    @classmethod
    def of(cls, text: str | None, metric: Metric) -> Objective:
        """From `--objective`; raises UserError."""
        if text is None or text == metric.name:
            return cls(metric)
        name, _, number = text.partition(":")
        try:
            level = float(number)
        except ValueError:
            level = math.nan
        if name != "time_to" or not is_level(metric, level):
            allowed = f"{metric.name}, or time_to:LEVEL with a level {levels_text(metric)}"
            raise UserError(f"--objective={text}: allowed is {allowed}")
        return cls(metric, level)

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        return "maximize" if self.level is None and self.metric.higher_is_better else "minimize"

    def midway(self, value: float | None) -> float:
        """What a trial that is under way is compared by, in the objective's direction.

        Args:
          value: of the metric. Where less of the objective is better but more of the metric is, 1 less the value
            counts (the error, of an accuracy). None or NaN: not finite, the worst there is.
        """
        if value is None or math.isnan(value):
            return -math.inf if self.direction == "maximize" else math.inf
        return 1.0 - value if self.level is not None and self.metric.higher_is_better else value

    def value(self, report: dict[str, Any]) -> float | None:
        """Of a finished run: the metric, or s to the level (infinite: it was not reached); None: it is not finite."""
        final = report["final"]["metric"]
        if report["ended"]["how"] == "not_finite" or (self.level is None and final is None):
            return None
        if self.level is None:
            return float(final)
        reached = report[f"time_to_{self.metric.name}"][threshold_key(self.level)]
        return math.inf if reached is None else float(reached)

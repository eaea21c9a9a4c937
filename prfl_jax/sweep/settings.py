"""`Sweep`: the checked flags of a sweep."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from prfl_jax.system.errors import UserError

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
      objective: `accuracy` at the end, or `time_to:LEVEL`, simulated s.
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
    objective: str = "accuracy"
    workers: int = 1
    heartbeat_s: int = 60
    retries: int = 5

    def check(self) -> None:
        """Raises UserError for a value that is not allowed."""
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
        Objective.of(self.objective)


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a trial is judged by; `level` None: accuracy at the end, more being better."""

    level: float | None

    @classmethod
    def of(cls, text: str) -> Objective:
        """From `--objective`; raises UserError."""
        if text == "accuracy":
            return cls(None)
        name, _, number = text.partition(":")
        try:
            level = float(number)
        except ValueError:
            level = 0.0
        if name != "time_to" or not 0 < level < 1:
            raise UserError(f"--objective={text}: allowed is accuracy, or time_to:LEVEL with a level between 0 and 1")
        return cls(level)

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        return "maximize" if self.level is None else "minimize"

    def midway(self, accuracy: float) -> float:
        """What a trial that is under way is compared by: accuracy, or the error where less is better."""
        return accuracy if self.level is None else 1.0 - accuracy

    def value(self, report: dict[str, Any]) -> float | None:
        """Of a finished run: accuracy, or s to the level (infinite if it was not reached); None: it is not finite."""
        if report["ended"]["how"] == "not_finite":
            return None
        if self.level is None:
            return float(report["final"]["accuracy"])
        reached = report["time_to_accuracy"][str(self.level)]
        return float("inf") if reached is None else float(reached)

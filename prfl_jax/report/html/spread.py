"""Mean, minimum and maximum of a number over the seeds of a group."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence


@dataclasses.dataclass(frozen=True)
class Spread:
    """A number over several runs, of which some may not have it.

    Attributes:
      mean, low, high: over the runs that have it; 0 if none has.
      known, asked: the number of runs that have it, and of all runs.
    """

    mean: float
    low: float
    high: float
    known: int
    asked: int

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread:
        """The spread of one value per run; None where a run does not have it."""
        known = [value for value in values if value is not None]
        if not known:
            return cls(0.0, 0.0, 0.0, 0, len(values))
        return cls(statistics.fmean(known), min(known), max(known), len(known), len(values))

    def text(self, write: Callable[[float], str], missing: str = "-") -> str:
        """As text: "950 s (900–1,000 s; 2 of 3)"; for one run its value only."""
        if not self.known:
            return missing
        low, high = write(self.low), write(self.high)
        differ = self.known > 1 and low != high
        if low.split()[1:] == high.split()[1:] and low.count(" ") == 1:
            low = low.split()[0]  # the unit is written once
        beside = [f"{low}–{high}"] if differ else []
        beside += [f"{self.known} of {self.asked}"] if self.known < self.asked else []
        return write(self.mean) + (f" ({'; '.join(beside)})" if beside else "")

"""A number of a group, over its seeds: the mean, the least and the most."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence


@dataclasses.dataclass(frozen=True)
class Spread:
    """Of what is known.

    Attributes:
      mean, low, high: 0 where nothing is known.
      known, asked: how many runs there are of, and how many there should be.
    """

    mean: float
    low: float
    high: float
    known: int
    asked: int

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread:
        known = [value for value in values if value is not None]
        if not known:
            return cls(0.0, 0.0, 0.0, 0, len(values))
        return cls(statistics.fmean(known), min(known), max(known), len(known), len(values))

    def text(self, write: Callable[[float], str], missing: str = "-") -> str:
        """In words: "950 s (900–1,000 s; 2 of 3)"; of one run its value alone."""
        if not self.known:
            return missing
        low, high = write(self.low), write(self.high)
        differ = self.known > 1 and low != high
        if low.split()[1:] == high.split()[1:] and low.count(" ") == 1:
            low = low.split()[0]  # the unit is said once
        beside = [f"{low}–{high}"] if differ else []
        beside += [f"{self.known} of {self.asked}"] if self.known < self.asked else []
        return write(self.mean) + (f" ({'; '.join(beside)})" if beside else "")

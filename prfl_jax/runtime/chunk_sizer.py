"""Estimates how long the next chunk will take from the chunks before it, to choose its number of windows."""

from __future__ import annotations

import math

from prfl_jax.clock import Window

CLOSE_COST = 0.25  # a window's aggregation and dispatches, in local rounds


def work(window: Window) -> float:
    """Host time of a window, in local rounds."""
    return len(window.arrivals) + CLOSE_COST


class ChunkSizer:
    """Sizes chunks so that each takes about `chunk_s` seconds, and at most twice the work of the one before.

    Args:
      chunk_s: s.
    """

    def __init__(self, chunk_s: float) -> None:
        self._chunk_s = chunk_s
        self._last_work = 0.0
        self._unit_s = self._slowest_s = math.nan

    def fits(self, amount: float) -> bool:
        """Whether a chunk of so much work is not too long; the first one is a single window."""
        return amount <= 2.0 * self._last_work and amount * self._unit_s <= self._chunk_s

    def at_most_s(self, amount: float) -> float:
        """Seconds that so much work takes at the slowest pace observed; infinity before the first chunk."""
        return math.inf if math.isnan(self._slowest_s) else amount * self._slowest_s

    def observe(self, amount: float, took_s: float) -> None:
        """Takes the work of a chunk and the seconds it took."""
        self._last_work, self._unit_s = amount, took_s / amount
        self._slowest_s = self._unit_s if math.isnan(self._slowest_s) else max(self._slowest_s, self._unit_s)

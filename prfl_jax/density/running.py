"""Which density each dispatch runs at: densities change while dispatches are under way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prfl_jax.clock.types import Arrival, Window


class RunningPercents:
    """Remembers the density of every dispatch until it arrives or fails."""

    def __init__(self) -> None:
        self._percents: dict[tuple[int, int], int] = {}  # (client, dispatch index) -> percent

    def take(self, window: Window, percents: np.ndarray) -> list[int]:
        """Percent each of the window's arrivals ran at, in order; `percents` [M] is what it dispatched."""
        for dispatch in window.dispatches:
            self._percents[dispatch.client, dispatch.index] = int(percents[dispatch.client])
        for failure in window.failures:
            del self._percents[failure.client, failure.index]
        return self._pop(window.arrivals)

    def _pop(self, arrivals: Sequence[Arrival]) -> list[int]:
        return [self._percents.pop((arrival.client, arrival.index)) for arrival in arrivals]

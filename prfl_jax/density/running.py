"""Which density each dispatch runs at: densities change while dispatches are under way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prfl_jax.clock.types import Arrival, Window


class RunningDensities:
    """Remembers the density of every dispatch until it arrives or fails."""

    def __init__(self) -> None:
        self._density_pct: dict[tuple[int, int], int] = {}  # (client, dispatch index) -> percent

    def take(self, window: Window, density_pct: np.ndarray) -> list[int]:
        """Percent each of the window's arrivals ran at, in order; `density_pct` [M] is what it dispatched."""
        for dispatch in window.dispatches:
            self._density_pct[dispatch.client, dispatch.index] = int(density_pct[dispatch.client])
        for failure in window.failures:
            del self._density_pct[failure.client, failure.index]
        return self._pop(window.arrivals)

    def _pop(self, arrivals: Sequence[Arrival]) -> list[int]:
        return [self._density_pct.pop((arrival.client, arrival.index)) for arrival in arrivals]

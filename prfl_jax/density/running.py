"""Remembers the density of each dispatch, since densities may change before it arrives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prfl_jax.clock.types import Arrival, Window


class RunningDensities:
    """The density of every dispatch that has neither arrived nor failed."""

    def __init__(self) -> None:
        self._density_pct: dict[tuple[int, int], int] = {}  # (client, dispatch index) -> percent

    def take(self, window: Window, density_pct: np.ndarray) -> list[int]:
        """Enters a window's dispatches and removes its failures and arrivals.

        Args:
          window: the next one.
          density_pct: `[M]` percents of its dispatches.

        Returns:
          The percent that each of its arrivals was trained at, in order.
        """
        for dispatch in window.dispatches:
            self._density_pct[dispatch.client, dispatch.index] = int(density_pct[dispatch.client])
        for failure in window.failures:
            del self._density_pct[failure.client, failure.index]
        return self._pop(window.arrivals)

    def _pop(self, arrivals: Sequence[Arrival]) -> list[int]:
        return [self._density_pct.pop((arrival.client, arrival.index)) for arrival in arrivals]

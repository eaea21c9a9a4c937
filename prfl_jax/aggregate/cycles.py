"""Mean times between dispatches and between closes, where arrivals close windows (NumPy only); used by FedFix."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from prfl_jax.clock.types import Window

_LEAST_S = 1e-12  # a cycle that rounding has made 0 s long still has a rate


class Cycles:
    """Running means over the windows that did not wait for all clients.

    A client's cycle goes from its dispatch to the moment at which it can be dispatched again: its own round, and the
    wait for the window's end where clients wait for that.

    Args:
      clients: M.
    """

    def __init__(self, clients: int) -> None:
        self._count = np.zeros(clients, np.int64)
        self._sum_s = np.zeros(clients)
        self._windows = self._arrivals = 0

    def add(self, window: Window) -> None:
        """Enters a window that did not wait for all clients."""
        self._windows += 1
        self._arrivals += len(window.arrivals)
        for arrival, waiting_s in zip(window.arrivals, window.waiting_s, strict=True):
            self._count[arrival.client] += 1
            self._sum_s[arrival.client] += arrival.round_s + waiting_s

    @property
    def mean_s(self) -> np.ndarray:
        """`[M]` mean cycle of each client, s; NaN before its first arrival."""
        mean = self._sum_s / np.maximum(self._count, 1)
        return np.where(self._count > 0, np.maximum(mean, _LEAST_S), np.nan)

    def step_s(self, taking_part: Collection[int]) -> float:
        """Mean s between two closes: arrivals a window over arrivals a second, sum_j 1 / cycle_j.

        Args:
          taking_part: the clients j; those that have not arrived yet are left out. NaN without any that has.
        """
        cycles = self.mean_s[sorted(taking_part)]
        rate = np.nansum(1.0 / cycles)
        return float(self._arrivals / self._windows / rate) if rate > 0 else float("nan")

    def to_state(self) -> dict[str, Any]:
        """As JSON can hold it (floats keep every bit)."""
        return {
            "count": self._count.tolist(),
            "sum_s": self._sum_s.tolist(),
            "windows": self._windows,
            "arrivals": self._arrivals,
        }

    def from_state(self, state: dict[str, Any]) -> None:
        """Takes over what `to_state` gave."""
        self._count = np.array(state["count"], np.int64)
        self._sum_s = np.array(state["sum_s"], np.float64)
        self._windows, self._arrivals = state["windows"], state["arrivals"]

"""Which pruning ratios the agents of a bandit gave to each client: how often, and lately."""

from __future__ import annotations

from typing import Any

import numpy as np

LAST = 100  # dispatches of a client that count as its latest
_BINS = 10


class RatioTotals:
    """Counts of the ratios (1 - density) that clients were dispatched at, from the first decision with rewards on.

    A client's dispatches before that are at density 1 and no agent's choice.
    """

    def __init__(self, clients: int) -> None:
        self._clients = clients
        self._tenths: np.ndarray | None = None  # [M, 10] dispatches by tenth of the ratio
        self._latest = np.zeros((0, LAST), np.int8)  # [M, LAST] ratios in percent, a ring

    def begin(self) -> None:
        """An agent has decided: later dispatches count."""
        if self._tenths is None:
            self._tenths = np.zeros((self._clients, _BINS), np.int64)
            self._latest = np.zeros((self._clients, LAST), np.int8)

    def add_window(self, record: Any) -> None:
        """Adds the dispatches of a window, whose densities are its `percents`."""
        if self._tenths is None or "client_bytes_down" not in record:
            return
        for (client, _), percent in zip(record["client_bytes_down"], record["percents"], strict=True):
            ratio = 100 - percent
            self._latest[client, int(self._tenths[client].sum()) % LAST] = ratio
            self._tenths[client, min(ratio // 10, _BINS - 1)] += 1

    def of(self, client: int) -> dict[str, Any]:
        """`ratios` of a client's entry in the report; nothing where no agent has decided."""
        if self._tenths is None:
            return {}
        tenths = self._tenths[client]
        latest = self._latest[client, : min(int(tenths.sum()), LAST)]
        mean = float(latest.mean()) / 100 if len(latest) else None
        return {"ratios": {"tenths": tenths.tolist(), "mean_last": mean, "last": len(latest)}}

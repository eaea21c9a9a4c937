"""Densities (percent) of the clients' rounds, where a density counts from a later round on than its dispatch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from prfl_jax.clock import Dispatch
from prfl_jax.engine.plan import LocalRound


class RoundDensities:
    """The density of each client's last dispatch.

    Args:
      clients: M.
      own_masks: whether clients choose masks of their own by their density, in some rounds only: it counts in
        such a round, and in later ones once that has arrived. Else it counts from each dispatch on.
    """

    def __init__(self, clients: int, own_masks: bool = False) -> None:
        self._sent = np.full(clients, 100)
        self._held = np.full(clients, 100) if own_masks else None  # by which each client chose the masks that it has

    def send(self, client: int, decided: int, anew: bool) -> int:
        """The density of a dispatch.

        Args:
          decided: by the policy.
          anew: whether the client chooses its own masks in that round.
        """
        self._sent[client] = decided if anew or self._held is None else self._held[client]
        return int(self._sent[client])

    def arrive(self, arrived: LocalRound) -> None:
        """Notes a round that has arrived."""
        if arrived.prunes and self._held is not None:
            self._held[arrived.client] = arrived.density_pct

    def of(self, dispatches: Iterable[Dispatch]) -> tuple[int, ...]:
        """Densities of a window's dispatches."""
        return tuple(int(self._sent[dispatch.client]) for dispatch in dispatches)

    def to_state(self) -> Any:
        """What changes and rounds in flight do not tell, as JSON can hold it."""
        return None if self._held is None else self._held.tolist()

    def from_state(self, state: Any, in_flight: Iterable[LocalRound]) -> None:
        """Takes over what `to_state` wrote."""
        self._held = None if state is None else np.array(state)
        for one in in_flight:
            self._sent[one.client] = one.density_pct

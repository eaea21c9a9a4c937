"""What a weight rule sees of a closing window, and the weights that it returns (NumPy only)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from prfl_jax.aggregate.weights import Slot
from prfl_jax.clock.types import Arrival


@dataclasses.dataclass(frozen=True)
class CloseContext:
    """What a weight rule may look at when a window closes; nothing in it depends on what is learned.

    Attributes:
      index: n, the window's number, from 1.
      arrivals: the window's arrivals, in order.
      slots: `[M]` what each client's buffer slot holds by now; None is an empty slot.
      p: `[M]` client weights, sum 1.
      round_s: `[M]` mean of each client's own round times so far, s; NaN before its first arrival.
      dt_s: the config's length of a fixed window, s.
      waits: whether this window has waited for (nearly) all clients.
      k: how many arrivals close a window; None where something else closes it.
      cycle_s: `[M]` mean s from a client's dispatch until it can be dispatched again: its round, and its wait for the
        window's end where clients wait for that; NaN before its first arrival. None where windows have a fixed length.
      step_s: mean s between two closes as the clients' cycles give it (see `cycles.py`); None likewise.
    """

    index: int
    arrivals: Sequence[Arrival]
    slots: Sequence[Slot | None]
    p: np.ndarray
    round_s: np.ndarray
    dt_s: float
    waits: bool = False
    k: int | None = None
    cycle_s: np.ndarray | None = None
    step_s: float | None = None

    @property
    def filled(self) -> np.ndarray:
        """`[M]` bool: slots that hold a model."""
        return np.array([slot is not None for slot in self.slots])

    @property
    def fresh(self) -> np.ndarray:
        """`[M]` bool: slots filled in this window."""
        return np.array([slot is not None and slot.window == self.index for slot in self.slots])

    @property
    def staleness(self) -> np.ndarray:
        """`[M]` tau_i = n - 1 - n'(i), recomputed at every aggregation, so a slot ages; 0 for an empty slot."""
        return np.array([0 if slot is None else self.index - 1 - slot.version for slot in self.slots])

    @property
    def arrival_staleness(self) -> np.ndarray:
        """tau of each arrival, in order."""
        return np.array([self.index - 1 - arrival.version for arrival in self.arrivals])


@dataclasses.dataclass(frozen=True)
class AggregationWeights:
    """The weights of one aggregation.

    Attributes:
      slots: `[M]` weights of the buffer's slots, sum 1, or all 0 where no slot counts and W stays.
      server_lr: for kernels with a buffer: W <- (1 - server_lr) W + server_lr mean (Eq. 11).
      arrivals: c_k of each arrival, in order, for the kernel `sum`.
      keep: the factor of the old W at the close, for the kernel `sum`.
      optimizer_lr: eta of `aggregation.optimizer`; the planner sets it.
    """

    slots: np.ndarray
    server_lr: float = 1.0
    arrivals: tuple[float, ...] = ()
    keep: float = 1.0
    optimizer_lr: float = 1.0

"""Early stopping: fires when a score has stopped improving (PR-FL, Algorithm 1, lines 1, 9 and 17).

The paper leaves `early_stopping()` open; the rule here is patience with a least improvement.
"""

from __future__ import annotations

import math
from typing import Any

from prfl_jax.system.errors import UserError


class EarlyStopping:
    """Fires after `patience` evaluations in a row that did not improve.

    Of two values the higher one is better (`Evidence`). An evaluation improves if it is above the best value +
    `min_delta`. An evaluation identical to the last one does not count (nothing new arrived in that slot), nor does NaN
    (the slot is empty). After it has fired, the counter and the best value start anew.

    Args:
      patience: evaluations, at least 1.
      min_delta: in the metric's unit, at least 0.

    Raises:
      UserError: a patience below 1, a negative or non-finite min_delta.
    """

    def __init__(self, patience: int, min_delta: float = 0.0) -> None:
        if patience < 1:
            raise UserError(f"density.patience: {patience} is below 1")
        if not (min_delta >= 0 and math.isfinite(min_delta)):
            raise UserError(f"density.min_delta: {min_delta} is not a finite number of at least 0")
        self._patience = patience
        self._min_delta = min_delta
        self._best: float | None = None
        self._last: float | None = None
        self._counter = 0

    def update(self, value: float) -> bool:
        """Adds one evaluation; returns whether early stopping fires now."""
        value = float(value)
        if math.isnan(value) or value == self._last:
            return False
        self._last = value
        if self._best is None or value > self._best + self._min_delta:
            self._best, self._counter = value, 0
            return False
        self._counter += 1
        if self._counter < self._patience:
            return False
        self._best, self._counter = None, 0
        return True

    def to_state(self) -> list[Any]:
        """`[best value, last value, counter]`, as JSON can hold it."""
        return [self._best, self._last, self._counter]

    def from_state(self, state: list[Any]) -> EarlyStopping:
        """Restores a saved state; returns itself."""
        self._best, self._last, self._counter = state
        return self

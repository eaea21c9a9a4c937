"""What a pruning ratio was worth: the readings of FedMP's reward (Eq. 8), and whose loss counts in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from prfl_jax.registry import Registry


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One round of a worker.

    Attributes:
      change: dLoss, the loss before less the loss now.
      before: the loss before.
      round_s: T_n, s.
      mean_s: mean of the last known T of all workers, s.
    """

    change: float
    before: float
    round_s: float
    mean_s: float

    @property
    def gain(self) -> float:
        """dLoss as a share of the loss before; 0 where the loss rose."""
        return max(self.change / self.before, 0.0) if self.before > 0 else 0.0

    @property
    def gap_s(self) -> float:
        """abs(T_n - mean T), s."""
        return abs(self.round_s - self.mean_s)


def normalised(outcome: Outcome, floor: float) -> float:
    """(dLoss / loss before) / (abs(T_n - mean T) / mean T + floor): Eq. 8 without units; a rising loss gives 0."""
    gap = outcome.gap_s / outcome.mean_s if outcome.mean_s > 0 else 0.0
    return outcome.gain / (gap + floor)


def literal(outcome: Outcome, floor: float) -> float:
    """Eq. 8 as printed, dLoss / abs(T_n - mean T) in 1/s; the denominator is at least `floor` mean T."""
    least = floor * outcome.mean_s
    return outcome.change / max(outcome.gap_s, least) if least > 0 else 0.0


def by_time(outcome: Outcome) -> float:
    """(dLoss / loss before) / T in 1/s: for one ratio for all workers, whose gap to their mean would always be 0."""
    return outcome.gain / outcome.round_s if outcome.round_s > 0 else 0.0


# (each worker's last mean training loss before and after a window `[M]`, NaN where none; a worker) -> (before, now)
LossPair = Callable[[np.ndarray, np.ndarray, int], tuple[float, float]]


def _own(before: np.ndarray, now: np.ndarray, client: int) -> tuple[float, float]:
    return float(before[client]), float(now[client])


def _global(before: np.ndarray, now: np.ndarray, client: int) -> tuple[float, float]:
    both = ~np.isnan(before)  # whoever arrived for the first time would change the mean by being in it
    return float(before[both].mean()), float(now[both].mean())


# the choices of `density.loss_change`
LOSS_CHANGES: Registry[LossPair] = Registry("density.loss_change", {"own": _own, "global": _global})


class TrainingLosses:
    """Each worker's last mean training loss.

    Args:
      pair: whose loss counts.
      num_clients: M.
    """

    def __init__(self, pair: LossPair, num_clients: int) -> None:
        self._pair = pair
        self.last = np.full(num_clients, np.nan)

    def add(self, losses: np.ndarray | None, arrived: Mapping[int, object]) -> dict[int, tuple[float, float]]:
        """Enters the losses of arrivals.

        Args:
          losses: `[M]`; NaN: no loss is known of this round. None: losses are not known in this run at all, as where
            the clock runs alone; each arrival then counts as one whose loss fell to 0.
          arrived: the workers that have arrived.

        Returns:
          (loss before, loss now) of each worker that has both: not of a worker's first round.
        """
        if losses is None:
            return {client: (1.0, 0.0) for client in arrived}
        before, now = self.last, self.last.copy()
        known = [client for client in arrived if np.isfinite(losses[client])]
        now[known] = losses[known]
        self.last = now
        return {client: self._pair(before, now, client) for client in known if not np.isnan(before[client])}

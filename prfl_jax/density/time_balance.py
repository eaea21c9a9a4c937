"""Densities from round times (Eq. 2-4): slow clients get small sub-models, so that all rounds take equally long."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable

import numpy as np

from prfl_jax.registry import Registry
from prfl_jax.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class BalanceRule:
    """One reading of Eq. 2-4 (`density.rule`).

    Attributes:
      entry: (round time in s, percent it was trained at) -> the entry of the client's queue, s.
      wanted: (present densities, min_j tbar_j / tbar_i of the same clients) -> densities before they are clipped to
        [rho_min_i, 1].
    """

    entry: Callable[[float, int], float]
    wanted: Callable[[np.ndarray, np.ndarray], np.ndarray]


def _raw(round_s: float, percent: int) -> float:
    return round_s


def _at_density_one(round_s: float, percent: int) -> float:
    return 100.0 * round_s / percent


def _ratio(present: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    return ratio


def _step(present: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    return present * (1.0 - 0.9 * (1.0 - ratio))


# the choices of `density.rule`
RULES: Registry[BalanceRule] = Registry(
    "density.rule",
    {
        "normalised": BalanceRule(_at_density_one, _ratio),
        "damped": BalanceRule(_raw, _step),
        "literal": BalanceRule(_raw, _ratio),
    },
)


class TimeBalance:
    """The queues Q_i of the last I round times, and the density each client gets from them.

    Rules, with tbar_i the mean over Q_i (Eq. 3):
      normalised  every entry is divided by the density it was trained at, so times are compared at equal
                  density; rho_i = clip(min_j tbar_j / tbar_i, rho_min_i, 1). The default.
      literal     Eq. 2/4 as printed: the same with raw times. A pruned client looks fast and gets a
                  large model back, so its density oscillates.
      damped      raw times, but a step from the present density:
                  rho_i = clip(rho_i * (1 - 0.9 * (tbar_i - min_j tbar_j) / tbar_i), rho_min_i, 1).

    Examples:
      A client that takes four times as long as the fastest one gets a quarter of the model:

      >>> balance = TimeBalance("normalised", num_clients=2, length=50)
      >>> balance.add(client=0, round_s=10.0, percent=100)
      >>> balance.add(client=1, round_s=40.0, percent=100)
      >>> balance.densities(present=np.ones(2), minimum=np.full(2, 0.1)).tolist()
      [1.0, 0.25]

    Args:
      rule: one of the three.
      num_clients: M.
      length: I, the largest number of entries of a queue.

    Raises:
      UserError: an unknown rule, a length below 1.
    """

    def __init__(self, rule: str, num_clients: int, length: int) -> None:
        self._rule = RULES.find(rule)
        if length < 1:
            raise UserError(f"density.interval: {length} is below 1")
        self._queues: list[collections.deque[float]] = [collections.deque(maxlen=length) for _ in range(num_clients)]

    def add(self, client: int, round_s: float, percent: int) -> None:
        """Adds one arrival: its round time t_i in s (without waiting) and the percent it was trained at."""
        self._queues[client].append(self._rule.entry(round_s, percent))

    def mean_times(self) -> np.ndarray:
        """tbar_i of Eq. 3, `[M]` s (at density 1 for `normalised`); NaN where nothing has arrived."""
        return np.array([sum(queue) / len(queue) if queue else np.nan for queue in self._queues])

    def densities(self, present: np.ndarray, minimum: np.ndarray) -> np.ndarray:
        """Eq. 4.

        Args:
          present: `[M]` densities in use.
          minimum: `[M]` rho_min_i.

        Returns:
          `[M]` densities in [rho_min_i, 1]; the present one where a queue is empty.
        """
        times = self.mean_times()
        known = ~np.isnan(times)
        wanted = np.array(present, dtype=np.float64)
        if known.any():
            here = times[known]
            fastest = here.min()
            # With equal times (also if all are 0 s) there is nothing to balance.
            ratio = np.divide(fastest, here, out=np.ones_like(here), where=here > fastest)
            wanted[known] = np.clip(self._rule.wanted(wanted[known], ratio), minimum[known], 1.0)
        return wanted

    def to_state(self) -> list[list[float]]:
        """The entries of the queues in s, as JSON can hold them."""
        return [list(queue) for queue in self._queues]

    def from_state(self, state: list[list[float]]) -> TimeBalance:
        """Restores a saved state; returns itself."""
        for queue, entries in zip(self._queues, state, strict=True):
            queue.clear()
            queue.extend(entries)
        return self

"""Dispatch rules (`window.dispatch`): when a client whose round has ended gets the next model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from prfl_jax.clock.types import Arrival
from prfl_jax.registry import Registry


@dataclasses.dataclass(frozen=True)
class DispatchRule:
    """When clients are dispatched.

    Args:
      on_arrival: at the moment their round ends (of a cohort, as many are drawn then); else at the next window's start.
    """

    on_arrival: bool

    def waiting_s(self, arrivals: Sequence[Arrival], end_s: float) -> tuple[float, ...]:
        """Seconds that each of a window's arrivals waits for its end; 0 where clients do not wait for it."""
        return tuple(0.0 if self.on_arrival else end_s - arrival.arrived_s for arrival in arrivals)


# values of `window.dispatch`
DISPATCH_RULES: Registry[DispatchRule] = Registry(
    "window.dispatch", {"window_end": DispatchRule(on_arrival=False), "on_arrival": DispatchRule(on_arrival=True)}
)


def find_dispatch_rule(name: str) -> DispatchRule:
    """The dispatch rule that `window.dispatch` names.

    Raises:
      UserError: there is no such rule.
    """
    return DISPATCH_RULES.find(name)

"""The rule of a run's windows: close rule, first-window rule and dispatch rule, with their settings checked."""

from __future__ import annotations

import dataclasses
import functools

from prfl_jax.clock import guard
from prfl_jax.clock.close_rules import (
    CLOSE_RULES,
    WAIT_FOR_ALL,
    CloseCondition,
    CloseRule,
    Opening,
    OpenWindow,
    check_condition,
    find_close_rule,
)
from prfl_jax.clock.dispatch_rules import DispatchRule, find_dispatch_rule
from prfl_jax.clock.types import WindowSettings
from prfl_jax.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class WindowRule(WindowSettings):
    """When a window closes and when a client that arrived gets the next model (Eq. 1; design: the window seam).

    Args: as for `WindowSettings`.

    Raises:
      UserError: an unknown name, a setting that its close rule does not allow, a negative cohort, a synchronous close
        rule with `on_arrival`.
    """

    def __post_init__(self) -> None:
        rule, dispatch = self.close_rule, self.dispatch_rule
        if self.is_plugin:
            guard.call_rule(self.close, rule.check, self)
        else:
            rule.check(self)
        if self.cohort < 0:
            raise UserError(f"window.cohort: {self.cohort} is below 0")
        if rule.synchronous and dispatch.on_arrival:
            raise UserError(
                f"window.dispatch: on_arrival makes no sense with window.close {self.close}; use window_end"
            )

    @functools.cached_property
    def close_rule(self) -> CloseRule:
        """Of `close`."""
        return find_close_rule(self.close)

    @functools.cached_property
    def dispatch_rule(self) -> DispatchRule:
        """Of `dispatch`."""
        return find_dispatch_rule(self.dispatch)

    @functools.cached_property
    def arrivals(self) -> int | None:
        """The number of arrivals with which every window closes, whoever they are from; None: it may have others."""
        if self.is_plugin:
            return guard.check_arrivals(self.close, guard.call_rule(self.close, self.close_rule.arrivals, self))
        return self.close_rule.arrivals(self)

    @functools.cached_property
    def is_plugin(self) -> bool:
        """Whether the close rule is a plugin, whose mistakes are the user's."""
        return self.close not in CLOSE_RULES

    @property
    def most_at_once(self) -> int | None:
        """How many arrivals of one moment are taken together; None: all."""
        return None if self.arrivals is None else 1

    @property
    def may_vectorize(self) -> bool:
        """Whether the clock may compute windows as arrays: each close is known at the opening, all dispatches too."""
        return self.close_rule.known_at_opening and not self.dispatch_rule.on_arrival

    def check_clients(self, clients: int) -> None:
        """Checks the rule for M clients.

        Raises:
          UserError: a cohort of more clients than there are, or more arrivals than can come.
        """
        if self.cohort > clients:
            raise UserError(f"window.cohort: {self.cohort} of {clients} clients cannot be drawn")
        most = self.cohort or clients
        if self.arrivals is not None and not self.dispatch_rule.on_arrival and self.arrivals > most:
            raise UserError(
                f"window.k: {self.arrivals} arrivals never come from {most} clients that wait for the window's end; "
                f"use at most {most}, or window.dispatch on_arrival"
            )

    def waits_for_all(self, number: int) -> bool:
        """Whether a window waits until every client in flight at its opening has arrived, or cannot."""
        first = number == 1 and self.first_waits_for_all and self.close_rule.first_may_wait
        if first:
            return True
        if self.is_plugin:
            return bool(guard.call_rule(self.close, self.close_rule.waits_for_all, number))
        return self.close_rule.waits_for_all(number)

    def condition(self, opening: Opening) -> CloseCondition | None:
        """When a window closes, as far as it is known at its opening; None: it has to be simulated by events."""
        rule = self._of(opening)
        if self.is_plugin:
            found = guard.call_rule(self.close, rule.condition, self, opening)
        else:
            found = rule.condition(self, opening)
        return None if found is None else check_condition(found, self, opening)

    def open(self, opening: Opening) -> OpenWindow:
        """A window, to be simulated event by event."""
        rule = self._of(opening)
        if not self.is_plugin or rule is WAIT_FOR_ALL:
            return rule.open(self, opening)
        return guard.GuardedWindow(self.close, opening, guard.call_rule(self.close, rule.open, self, opening))

    def never_closes(self, number: int) -> Exception:
        """The error for a window that waits although nothing is in flight (to be raised): a plugin's, or a bug."""
        if self.is_plugin:
            return guard.never_closes(self.close, number)
        return RuntimeError(f"window {number} cannot close: nothing is in flight")

    def _of(self, opening: Opening) -> CloseRule:
        return WAIT_FOR_ALL if self.waits_for_all(opening.number) else self.close_rule

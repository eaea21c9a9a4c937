"""Checks what a custom close rule returns: its mistakes become one-line errors, not tracebacks or endless loops.

Built-in rules are not guarded. The checks of custom transports are in `transports.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

from prfl_jax.clock.close_rules import Opening, OpenWindow
from prfl_jax.clock.ties import until
from prfl_jax.clock.types import Arrival, Failure
from prfl_jax.registry import call, one_line
from prfl_jax.system.errors import UserError, refuse

KEY = "window.close"


def call_rule(close: str, function: Callable[..., Any], *args: Any) -> Any:
    """What a function of the plugin `close` returns.

    Raises:
      UserError: it raised; the text has the line of the user's file.
    """
    return call(f"config.{KEY}", close, function, *args)


def misbehaved(close: str, what: str, found: object, allowed: str) -> UserError:
    """The error for a value that a plugin may not return (to be raised)."""
    return UserError(f"config.{KEY}={close!r}: {what} gives {one_line(found)}; allowed is {allowed}")


def check_arrivals(close: str, found: object) -> int | None:
    """What `arrivals` of the plugin returned.

    Raises:
      UserError: neither None nor an integer of at least 0.
    """
    if found is None:
        return None
    if not isinstance(found, Integral) or found < 0:
        raise misbehaved(close, "arrivals", found, "None or an integer of at least 0")
    return int(found)


def never_closes(close: str, number: int) -> UserError:
    """The error for a window of a plugin that waits although nothing is in flight (to be raised)."""
    allowed = "a rule whose `enough` becomes true by the last arrival"
    return refuse(KEY, close, f"{allowed}: window {number} cannot close, nothing is in flight")


class GuardedWindow(OpenWindow):
    """An open window of a plugin: passes every call on and checks the answers.

    Args:
      close: the plugin's name.
      opening: how the window began.
      window: what the plugin's `open` returned.

    Raises:
      UserError: `window` is no `OpenWindow`; later, that a call fails or returns a value that is not allowed.
    """

    def __init__(self, close: str, opening: Opening, window: object) -> None:
        self._close, self._opening = close, opening
        if not isinstance(window, OpenWindow):
            raise misbehaved(close, f"in window {opening.number} open", window, "an object of OpenWindow or a subclass")
        self._window = window

    def observe(self, arrivals: Sequence[Arrival], failures: Sequence[Failure], now_s: float) -> None:
        """As `OpenWindow.observe`."""
        call_rule(self._close, self._window.observe, arrivals, failures, now_s)

    def closes_s(self, now_s: float) -> float:
        """As `OpenWindow.closes_s`, which is infinite or, where `enough`, not before `now_s`."""
        found = call_rule(self._close, self._window.closes_s, now_s)
        if not isinstance(found, Real) or not until(float(found)) >= now_s:
            raise self._wrong("closes_s", found, f"a time of at least now, {now_s:g} simulated s")
        if found <= now_s and not self.enough:  # time would stand still
            raise self._wrong("closes_s", found, f"infinity while `enough` is false (now is {now_s:g} simulated s)")
        return float(found)

    @property
    def enough(self) -> bool:  # type: ignore[override]  # an attribute of what is guarded
        """As `OpenWindow.enough`."""
        return bool(call_rule(self._close, lambda: bool(self._window.enough)))

    @property
    def limit_s(self) -> float:  # type: ignore[override]  # an attribute of what is guarded
        """As `OpenWindow.limit_s` at the close: finite."""
        found = call_rule(self._close, lambda: self._window.limit_s)
        if not isinstance(found, Real) or not math.isfinite(found):
            raise self._wrong("limit_s at the close", found, "a finite number of simulated s")
        return float(found)

    @property
    def late(self) -> list[int]:
        """As `OpenWindow.late`: clients in flight."""
        found = call_rule(self._close, lambda: self._window.late)
        flying = self._opening.in_flight
        if not isinstance(found, (list, tuple)) or not all(
            isinstance(one, Integral) and one in flying for one in found
        ):
            raise self._wrong("late", found, "a list of clients in flight")
        return list(found)

    def _wrong(self, what: str, found: object, allowed: str) -> UserError:
        return misbehaved(self._close, f"in window {self._opening.number} {what}", found, allowed)

"""Checks of a config that tie keys of windows, cohorts and faults together; `config/validate.py` runs them.

Each takes the config as {dotted key: value} and raises `UserError`, naming the key to change first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from prfl_jax.clock.close_rules import find_close_rule
from prfl_jax.clock.dispatch_rules import find_dispatch_rule
from prfl_jax.clock.window_rule import WindowRule
from prfl_jax.system.errors import refuse


def rule_of(flat: Mapping[str, Any]) -> WindowRule:
    """The window rule of a flat config.

    Raises:
      UserError: see `WindowRule`.
    """
    return WindowRule(**{key: flat[f"window.{key}"] for key in WindowRule.__dataclass_fields__})


def window(flat: Mapping[str, Any]) -> None:
    """The dispatch rule and the number of arrivals fit the close rule."""
    close, dispatch, cohort, number = (
        flat[key] for key in ("window.close", "window.dispatch", "window.cohort", "clients.number")
    )
    if find_dispatch_rule(dispatch).on_arrival:
        if find_close_rule(close).synchronous:
            raise refuse("window.dispatch", dispatch, f"'window_end' with window.close={close!r}")
        return
    arrivals = rule_of(flat).arrivals
    if arrivals is not None and arrivals > (cohort or number):
        most = f"window.cohort={cohort}" if cohort else f"clients.number={number}"
        raise refuse("window.k", arrivals, f"at most {most} with window.dispatch='window_end'")


def cohort(flat: Mapping[str, Any]) -> None:
    """A cohort has at most as many clients as there are."""
    size, number = flat["window.cohort"], flat["clients.number"]
    if size > number:
        raise refuse("window.cohort", size, f"0 (all clients) or at most clients.number={number}")


def faults(flat: Mapping[str, Any]) -> None:
    """Each client leaves after it has joined."""
    joins, leaves = flat["faults.join_s"], flat["faults.leave_s"]
    for client in range(math.lcm(len(joins), len(leaves))):  # 0 where one is (); the others repeat these
        join, leave = joins[client % len(joins)], leaves[client % len(leaves)]
        if leave <= join:
            allowed = f"after faults.join_s: client {client} joins at {join:g} s and leaves at {leave:g} s"
            raise refuse("faults.leave_s", flat["faults.leave_s"], allowed)


# run by `config/validate.py`
CHECKS = (window, cohort, faults)

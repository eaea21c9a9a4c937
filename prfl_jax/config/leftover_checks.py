"""Rules that tie keys together and have not been moved to their rooms yet, by room.

A room that exports `CHECKS` takes the place of its entry here; this file goes when all of them do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from prfl_jax.clock import SYNCHRONOUS
from prfl_jax.density import find_density
from prfl_jax.system.errors import refuse


def _window(flat: Mapping[str, Any]) -> None:
    close, dispatch, k, cohort, number = (
        flat[key] for key in ("window.close", "window.dispatch", "window.k", "window.cohort", "clients.number")
    )
    if close in SYNCHRONOUS and dispatch == "on_arrival":
        raise refuse("window.dispatch", dispatch, f"'window_end' with window.close={close!r}")
    if close == "k_arrivals" and dispatch == "window_end" and k > (cohort or number):
        most = f"window.cohort={cohort}" if cohort else f"clients.number={number}"
        raise refuse("window.k", k, f"at most {most} with window.dispatch='window_end'")


def _cohort(flat: Mapping[str, Any]) -> None:
    cohort, number = flat["window.cohort"], flat["clients.number"]
    if cohort > number:
        raise refuse("window.cohort", cohort, f"0 (all clients) or at most clients.number={number}")


def _faults(flat: Mapping[str, Any]) -> None:
    joins, leaves = flat["faults.join_s"], flat["faults.leave_s"]
    for client in range(math.lcm(len(joins), len(leaves))):  # 0 where one is (); the others repeat these
        join, leave = joins[client % len(joins)], leaves[client % len(leaves)]
        if leave <= join:
            allowed = f"after faults.join_s: client {client} joins at {join:g} s and leaves at {leave:g} s"
            raise refuse("faults.leave_s", flat["faults.leave_s"], allowed)


def _one_copy(flat: Mapping[str, Any]) -> None:
    density = flat["density.name"]
    if not find_density(density).stays_full and flat["transport.name"] == "one_copy":
        raise refuse("transport.name", "one_copy", f"delta, distinct or unicast with density.name={density!r}")


CHECKS: dict[str, tuple[Callable[[Mapping[str, Any]], None], ...]] = {
    "prfl_jax.clock": (_window, _cohort, _faults),
    "prfl_jax.transport": (_one_copy,),
}

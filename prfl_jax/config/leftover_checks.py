"""Rules that tie keys together and have not been moved to their rooms yet, by room.

A room that exports `CHECKS` takes the place of its entry here; this file goes when all of them do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from prfl_jax.aggregate import AGGREGATIONS, find_aggregation
from prfl_jax.clock import SYNCHRONOUS
from prfl_jax.data import SIGNALS
from prfl_jax.density import DENSITIES, find_density
from prfl_jax.models.architectures import ARCHITECTURES
from prfl_jax.robustness import config_checks
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


def _cohort_aggregation(flat: Mapping[str, Any]) -> None:
    """Nobody's model is kept, so no choice may need one of somebody who is not there."""
    cohort, name = flat["window.cohort"], flat["aggregation.name"]
    if not cohort:
        return
    if not find_aggregation(name).arrivals_alone:
        alone = ", ".join(key for key, choice in AGGREGATIONS.items() if choice.arrivals_alone)
        raise refuse("aggregation.name", name, f"one of {alone} with window.cohort={cohort}")
    if find_aggregation(name).kernel != "sum" and flat["window.dispatch"] == "on_arrival":
        allowed = f"'window_end' with aggregation.name={name!r} and window.cohort={cohort}"
        raise refuse("window.dispatch", "on_arrival", allowed)


def _cohort_density(flat: Mapping[str, Any]) -> None:
    cohort, density = flat["window.cohort"], flat["density.name"]
    if cohort and not find_density(density).in_cohorts:
        allowed = " or ".join(key for key, policy in DENSITIES.items() if policy.in_cohorts)
        raise refuse("density.name", density, f"{allowed} with window.cohort={cohort}")


def _faults(flat: Mapping[str, Any]) -> None:
    joins, leaves = flat["faults.join_s"], flat["faults.leave_s"]
    for client in range(math.lcm(len(joins), len(leaves))):  # 0 where one is (); the others repeat these
        join, leave = joins[client % len(joins)], leaves[client % len(leaves)]
        if leave <= join:
            allowed = f"after faults.join_s: client {client} joins at {join:g} s and leaves at {leave:g} s"
            raise refuse("faults.leave_s", flat["faults.leave_s"], allowed)


def _leading(flat: Mapping[str, Any]) -> None:
    if flat["submodel.name"] == "leading" and flat["model.name"] not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise refuse("submodel.name", "leading", f"nested or full with a model that is not one of {known}")


def _scaled(flat: Mapping[str, Any]) -> None:
    if flat["submodel.name"] != "leading" and flat["local.name"] == "scaled_sgd":
        raise refuse("local.name", "scaled_sgd", "sgd with a submodel.name other than 'leading'")


def _full(flat: Mapping[str, Any]) -> None:
    if flat["density.name"] != "full" and flat["submodel.name"] == "full":
        raise refuse("density.name", flat["density.name"], "'full' with submodel.name='full'")


def _one_copy(flat: Mapping[str, Any]) -> None:
    density = flat["density.name"]
    if density != "full" and flat["transport.name"] == "one_copy":
        raise refuse("transport.name", "one_copy", f"delta, distinct or unicast with density.name={density!r}")


def _recovery(flat: Mapping[str, Any]) -> None:
    name, density = flat["aggregation.name"], flat["density.name"]
    if find_density(density).recovers and find_aggregation(name).kernel == "sum":
        buffered = ", ".join(key for key, choice in AGGREGATIONS.items() if choice.kernel != "sum")
        raise refuse("aggregation.name", name, f"{buffered} with density.name={density!r}, which looks at the buffer")


def _tiers(flat: Mapping[str, Any]) -> None:
    """Tiers are given once, by the round times of the first window."""
    name = flat["density.name"]
    if name.startswith("tiers") and not flat["density.tiers"]:
        raise refuse("density.tiers", (), f"at least one density with density.name={name!r}")
    if find_density(name).needs_first_times and flat["window.close"] != "all":
        if not flat["window.first_waits_for_all"]:
            allowed = f"True with density.name={name!r}, which needs every client's first round time"
            raise refuse("window.first_waits_for_all", False, allowed)


def _signals(flat: Mapping[str, Any]) -> None:
    needed = find_density(flat["density.name"]).recovers or flat["stop_early"]
    if needed and SIGNALS.find(flat["eval.signal"]).held_out and flat["data.holdout_fraction"] == 0:
        name = flat["density.name"]
        allowed = f"in (0, 1) with eval.signal='heldout' and density.name={name!r} or stop_early=True"
        raise refuse("data.holdout_fraction", flat["data.holdout_fraction"], allowed)


def _trained_ahead(flat: Mapping[str, Any]) -> None:
    if flat["engine.train"] == "pending" and flat["submodel.importance"] == "client_sq_grad":
        if config_checks.prunes_by(flat):
            allowed = "auto or arrival with submodel.importance='client_sq_grad', which is not kept until the arrival"
            raise refuse("engine.train", "pending", allowed)


CHECKS: dict[str, tuple[Callable[[Mapping[str, Any]], None], ...]] = {
    "prfl_jax.clock": (_window, _cohort, _faults),
    "prfl_jax.aggregate": (_cohort_aggregation, _recovery),
    "prfl_jax.density": (_full, _cohort_density, _tiers, _signals),
    "prfl_jax.submodel": (_leading, _trained_ahead),
    "prfl_jax.transport": (_one_copy,),
    "prfl_jax.local": (_scaled,),
    "prfl_jax.robustness": config_checks.CHECKS,
}

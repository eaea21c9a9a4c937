"""Checks that tie `aggregation.name` to other keys of a config: cohorts, recovering densities, robust aggregations.

`config/validate.py` runs each of `CHECKS` on {dotted key: value}. Nothing here imports JAX.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prfl_jax.aggregate.choices import AGGREGATIONS
from prfl_jax.aggregate.server_optimizers import arguments
from prfl_jax.clock import find_dispatch_rule
from prfl_jax.clock.checks import rule_of
from prfl_jax.density import find_density, prunes_by
from prfl_jax.submodel import IMPORTANCES
from prfl_jax.system.errors import refuse


def cohorts(flat: Mapping[str, Any]) -> None:
    """In a cohort only the models of its clients exist, so the aggregation may need no others."""
    name, cohort = flat["aggregation.name"], flat["window.cohort"]
    if not cohort:
        return
    choice = AGGREGATIONS.find(name)
    if not choice.arrivals_alone:
        alone = ", ".join(AGGREGATIONS.with_trait(lambda one: one.arrivals_alone))
        raise refuse("aggregation.name", name, f"one of {alone} with window.cohort={cohort}")
    if choice.buffered and find_dispatch_rule(flat["window.dispatch"]).on_arrival:
        allowed = f"'window_end' with aggregation.name={name!r} and window.cohort={cohort}"
        raise refuse("window.dispatch", flat["window.dispatch"], allowed)


def recovering_densities(flat: Mapping[str, Any]) -> None:
    """A density policy that recovers scores each client's model in the buffer, so there has to be one."""
    name, density = flat["aggregation.name"], flat["density.name"]
    if find_density(density).recovers and not AGGREGATIONS.find(name).buffered:
        buffered = ", ".join(AGGREGATIONS.with_trait(lambda one: one.buffered))
        raise refuse("aggregation.name", name, f"{buffered} with density.name={density!r}, which looks at the buffer")


def robust_aggregation(flat: Mapping[str, Any]) -> None:
    """Honest clients outnumber f malicious ones as the aggregation needs it, and all models fit in one place."""
    name, f = flat["aggregation.name"], flat["aggregation.byzantine"]
    choice, (there, why) = AGGREGATIONS.find(name), _clients_at_a_close(flat)
    if choice.least is not None and choice.least(f) > there:
        most = max((k for k in range(min(f, there + 1)) if choice.least(k) <= there), default=None)
        allowed = f"at most {most}" if most is not None else f"with at least {choice.least(0)} clients"
        raise refuse("aggregation.byzantine", f, f"{allowed} with aggregation.name={name!r} and {why}")
    if choice.at_once and flat["engine.models"] == "host":
        raise refuse("engine.models", "host", f"device with aggregation.name={name!r}, which looks at all models")
    importance = flat["submodel.importance"]
    if choice.robust and prunes_by(flat) and IMPORTANCES.find(importance).gathers:
        allowed = f"weight with aggregation.name={name!r}: malicious clients can set their squared updates"
        raise refuse("submodel.importance", importance, allowed)


def _clients_at_a_close(flat: Mapping[str, Any]) -> tuple[int, str]:
    """The most clients that one close may look at, and the keys that say so."""
    cohort, rule = flat["window.cohort"], rule_of(flat)
    if not cohort:
        return flat["clients.number"], f"clients.number={flat['clients.number']}"
    if rule.arrivals is not None and rule.arrivals < cohort:
        key = f"window.{rule.close_rule.length_key}"
        return rule.arrivals, f"{key}={flat[key]!r}"
    return cohort, f"window.cohort={cohort}"


# run by `config/validate.py`
CHECKS = (cohorts, recovering_densities, robust_aggregation, arguments)

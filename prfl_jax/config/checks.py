"""Checks across keys that belong to no seam: the lengths of tuples by client, and the keys of `engine`.

`validate.py` runs them. The rules of the other keys stand beside the choices that make them, in the rooms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prfl_jax.config.defaults import ENDLESS
from prfl_jax.config.schema import RULES
from prfl_jax.density import prunes_by
from prfl_jax.submodel import IMPORTANCES, SUBMODELS
from prfl_jax.system.errors import refuse

_MAY_BE_EMPTY = ("clients.flop_s", "clients.step_s", "faults.join_s", "faults.leave_s")


def _per_client(flat: Mapping[str, Any]) -> None:
    number = flat["clients.number"]
    for key, rule in RULES.items():
        value = flat[key]
        if not rule.per_client or (key in _MAY_BE_EMPTY and value == ()):
            continue
        length = len(value)
        if not length or number % length:
            words = f"a tuple of clients.number={number} numbers, or of a divisor of it (repeated in turn)"
            raise refuse(key, value, f"{words}, not {length}")


def _trained_ahead(flat: Mapping[str, Any]) -> None:
    """Squared gradients of clients exist only while the client trains."""
    if flat["engine.train"] != "pending":
        return
    importance, name = flat["submodel.importance"], flat["submodel.name"]
    if IMPORTANCES.find(importance).from_clients and prunes_by(flat):
        allowed = f"auto or arrival with submodel.importance={importance!r}, which is not kept until the arrival"
        raise refuse("engine.train", "pending", allowed)
    if SUBMODELS.find(name).evidence is not None:
        allowed = f"auto or arrival with submodel.name={name!r}, whose gradients are not kept until the arrival"
        raise refuse("engine.train", "pending", allowed)


def _rounds_are_known(flat: Mapping[str, Any]) -> None:
    """Where the mask changes by the number of rounds, that is not left to the horizon."""
    name, rounds = flat["submodel.name"], flat["rounds"]
    if SUBMODELS.find(name).counts_rounds and flat["pruning.rounds"] is None and rounds >= ENDLESS:
        allowed = f"a number with submodel.name={name!r} and rounds={rounds}, which only the horizon ends"
        raise refuse("pruning.rounds", None, allowed)


def _with_the_host(flat: Mapping[str, Any]) -> None:
    if flat["engine.models"] == "host" and flat["engine.devices"] > 1:
        raise refuse("engine.devices", flat["engine.devices"], "0 or 1 with engine.models='host'")


CHECKS = (_per_client, _trained_ahead, _rounds_are_known, _with_the_host)

"""The choices of `submodel.name`, by name or as a plugin from a user's file, and the checks of a config about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prfl_jax import registry
from prfl_jax.clock import CLOSE_RULES, find_close_rule
from prfl_jax.models.architectures import ARCHITECTURES
from prfl_jax.registry import Registry
from prfl_jax.submodel.adaptive import CONVENTIONAL, PRUNEFL
from prfl_jax.submodel.filters import Filters
from prfl_jax.submodel.leading import Leading
from prfl_jax.submodel.magnitude import Magnitude
from prfl_jax.submodel.personal import LAYERWISE, OWN_SHARES, OWN_SIZES, THRESHOLD
from prfl_jax.submodel.rolling import Rolling
from prfl_jax.submodel.rule import Nested, Submodel, SubmodelRule
from prfl_jax.submodel.server_mask import least_votes
from prfl_jax.submodel.target import ITERATIVE, SNIP
from prfl_jax.system.errors import refuse

_KEY = "submodel.name"


def _accept(name: str, found: Any) -> SubmodelRule:
    """A plugin as a rule.

    Raises:
      UserError: it is none, or has neither scores nor levels.
    """
    if not isinstance(found, SubmodelRule) or not found.partial:
        raise registry.wrong(f"config.{_KEY}", name, found, "a prfl_jax.submodel.Submodel with scores or levels")
    return found


# the choices of `submodel.name`
SUBMODELS: Registry[SubmodelRule] = Registry(
    _KEY,
    {
        "nested": Nested(),
        "leading": Leading(),
        "rolling": Rolling(),
        "magnitude": Magnitude(),
        "filters": Filters(),
        "layerwise": LAYERWISE,
        "threshold": THRESHOLD,
        "own_shares": OWN_SHARES,
        "own_sizes": OWN_SIZES,
        "prunefl": PRUNEFL,
        "conventional": CONVENTIONAL,
        "snip": SNIP,
        "iterative": ITERATIVE,
        "full": Submodel(),
    },
    _accept,
)


def find_submodel(config: Any) -> SubmodelRule:
    """The rule that the group `submodel` of a config names.

    Raises:
      UserError: a plugin that is no rule, or cannot be loaded.
    """
    return SUBMODELS.find(config.name)


def _layers_are_known(flat: Mapping[str, Any]) -> None:
    """Rules about channels need a model whose layers are tabulated."""
    name = flat[_KEY]
    if SUBMODELS.find(name).known_networks and ARCHITECTURES.get(flat["model.name"]) is None:
        known = ", ".join(ARCHITECTURES)
        others = SUBMODELS.with_trait(lambda rule: not rule.known_networks)
        raise refuse(_KEY, name, f"{' or '.join(others)} with a model that is not one of {known}")


def _votes_can_be_had(flat: Mapping[str, Any]) -> None:
    """No weight of the server's mask needs more votes than there are clients."""
    if not SUBMODELS.find(flat[_KEY]).masks_of_clients:
        return
    clients = flat["clients.number"]
    for key in ("pruning.votes", "pruning.initial_votes"):
        if (least := least_votes(flat[key], clients, flat["pruning.votes_above"])) > clients:
            allowed = f"below 1 with pruning.votes_above=True: it asks for {least} votes of clients.number={clients}"
            raise refuse(key, flat[key], allowed)


def _initial_stage_waits(flat: Mapping[str, Any]) -> None:
    """A round of the initial stage ends for all clients at once: the next one begins from its masks."""
    rule, rounds, close = SUBMODELS.find(flat[_KEY]), flat["pruning.initial_rounds"], flat["window.close"]
    if rule.shared_mask:
        return
    if (rule.initial_rounds if rounds is None else rounds) and not find_close_rule(close).synchronous:
        fitting = " or ".join(CLOSE_RULES.with_trait(lambda one: one.synchronous))
        allowed = f"0 with submodel.name={flat[_KEY]!r} and window.close={close!r}; others with window.close={fitting}"
        raise refuse("pruning.initial_rounds", rounds, allowed)


def _shared_masks_wait(flat: Mapping[str, Any]) -> None:
    """A mask of all clients changes where no update under the one before is on its way."""
    close = flat["window.close"]
    if SUBMODELS.find(flat[_KEY]).shared_mask and not find_close_rule(close).synchronous:
        fitting = " or ".join(CLOSE_RULES.with_trait(lambda one: one.synchronous))
        raise refuse("window.close", close, f"{fitting} with submodel.name={flat[_KEY]!r}, whose mask is everybody's")


def _own_check(flat: Mapping[str, Any]) -> None:
    """What the rule itself refuses."""
    SUBMODELS.find(flat[_KEY]).check(flat)


# run by `config/validate.py`
CHECKS: tuple[Callable[[Mapping[str, Any]], None], ...] = (
    _layers_are_known,
    _votes_can_be_had,
    _initial_stage_waits,
    _shared_masks_wait,
    _own_check,
)

"""The choices of `submodel.name`, by name or as a plugin from a user's file, and the checks of a config about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from prfl_jax import registry
from prfl_jax.models.architectures import ARCHITECTURES
from prfl_jax.registry import Registry
from prfl_jax.submodel.leading import Leading
from prfl_jax.submodel.magnitude import Magnitude
from prfl_jax.submodel.rolling import Rolling
from prfl_jax.submodel.rule import Nested, Submodel, SubmodelRule
from prfl_jax.submodel.scores import IMPORTANCES
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


SUBMODELS: Registry[SubmodelRule] = Registry(
    _KEY,
    {"nested": Nested(), "leading": Leading(), "rolling": Rolling(), "magnitude": Magnitude(), "full": Submodel()},
    _accept,
)


def find_submodel(config: Any) -> SubmodelRule:
    """The rule that the group `submodel` of a config names.

    Raises:
      UserError: a plugin that is no rule, or cannot be loaded.
    """
    return SUBMODELS.find(config.name)


def prunes(config: Any) -> bool:
    """Whether a config's sub-models come from scores, and densities may be below 1."""
    return config.density.name != "full" and find_submodel(config.submodel).scored


def prunes_by(flat: Mapping[str, Any]) -> bool:
    """`prunes` of a config as {dotted key: value}."""
    names = {group: SimpleNamespace(name=flat[f"{group}.name"]) for group in ("density", "submodel")}
    return prunes(SimpleNamespace(**names))


def uploads_squares(config: Any) -> bool:
    """Whether clients upload squared gradients: only where the importance asks for them and something is pruned."""
    return IMPORTANCES.find(config.submodel.importance).from_clients and prunes(config)


def _layers_are_known(flat: Mapping[str, Any]) -> None:
    """Rules about channels need a built-in model."""
    name = flat[_KEY]
    if SUBMODELS.find(name).known_networks and flat["model.name"] not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        others = SUBMODELS.with_trait(lambda rule: not rule.known_networks)
        raise refuse(_KEY, name, f"{' or '.join(others)} with a model that is not one of {known}")


def _not_trained_ahead(flat: Mapping[str, Any]) -> None:
    """Squared gradients of clients exist only while the client trains."""
    importance = flat["submodel.importance"]
    if flat["engine.train"] == "pending" and IMPORTANCES.find(importance).from_clients and prunes_by(flat):
        allowed = f"auto or arrival with submodel.importance={importance!r}, which is not kept until the arrival"
        raise refuse("engine.train", "pending", allowed)


CHECKS: tuple[Callable[[Mapping[str, Any]], None], ...] = (_layers_are_known, _not_trained_ahead)

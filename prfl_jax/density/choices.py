"""From `density.name` to a policy, and what follows from the choice before a run begins."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from prfl_jax import registry
from prfl_jax.density.bandit import BanditDensity, LiteralBandit, UniformBandit
from prfl_jax.density.base import DensityPolicy
from prfl_jax.density.evidence import KINDS, OF_TRAINING
from prfl_jax.density.policies import (
    BalancedDensity,
    FullDensity,
    RecoveringDensity,
    RecoveringTiers,
    TieredDensity,
)
from prfl_jax.submodel import IMPORTANCES, find_submodel


def _accept(spec: str, found: Any) -> type[DensityPolicy]:
    """A plugin, if it is a policy that asks for what can be measured."""
    key = "config.density.name"
    if not (isinstance(found, type) and issubclass(found, DensityPolicy)):
        raise registry.wrong(key, spec, found, "a subclass of prfl_jax.density.DensityPolicy")
    if not frozenset(found.needs) <= KINDS:
        allowed = f"a policy whose needs are among {', '.join(sorted(KINDS))}, not {sorted(found.needs)}"
        raise registry.wrong(key, spec, found, allowed)
    return found


# the choices of `density.name`
DENSITIES: registry.Registry[type[DensityPolicy]] = registry.Registry(
    "density.name",
    {
        "full": FullDensity,
        "time_balance": BalancedDensity,
        "recovery": RecoveringDensity,
        "tiers": TieredDensity,
        "tiers_recovery": RecoveringTiers,
        "bandit": BanditDensity,
        "bandit_literal": LiteralBandit,
        "bandit_uniform": UniformBandit,
    },
    _accept,
)


def find_density(name: str) -> type[DensityPolicy]:
    """The class that `density.name` names: a built-in, or a plugin.

    Raises:
      UserError: an unknown name, or an object that is no subclass of `DensityPolicy`.
    """
    return DENSITIES.find(name)


def make_density(config: Any, num_clients: int, stop_early: bool = False, seed: int = 0) -> DensityPolicy:
    """The policy that the group `density` of a config names, for M clients.

    Args:
      stop_early: whether `Decision.stop` will end the run: the policy then asks for the server's score.
      seed: root seed of the run.

    Raises:
      UserError: an unknown name, or a value that is not allowed.
    """
    policy = find_density(config.name)(config, num_clients)
    policy.root_seed = seed
    if stop_early:
        policy.stop_with_server()
    return policy


def evidence_needed(name: str, stop_early: bool) -> frozenset[str]:
    """Which fields of `Evidence` a run measures on held-out data, with this `density.name` and `stop_early`.

    Raises:
      UserError: as `find_density`.
    """
    return (find_density(name).needs - OF_TRAINING) | (frozenset({"server_score"}) if stop_early else frozenset())


def reads_losses(name: str) -> bool:
    """Whether the policy decides from the clients' training losses.

    Raises:
      UserError: as `find_density`.
    """
    return bool(find_density(name).needs & OF_TRAINING)


def setting_in_force(name: str, key: str, given: Any) -> Any:
    """The value of a key of the group `density`, given or not; None for a plugin, whose own default is not known yet.

    Args:
      name: `density.name`.
      key: without its group.
      given: its value in a config.
    """
    policy = DENSITIES.known(name)
    return policy.defaults.get(key) if given is None and policy is not None else given


def prunes(config: Any) -> bool:
    """Whether sub-models are chosen by scores and densities may be below 1, so that weights are pruned."""
    return not find_density(config.density.name).stays_full and find_submodel(config.submodel).scored


def prunes_by(flat: Any) -> bool:
    """`prunes` of a config in the form {dotted key: value}."""
    names = {group: SimpleNamespace(name=flat[f"{group}.name"]) for group in ("density", "submodel")}
    return prunes(SimpleNamespace(**names))


def uploads_squares(config: Any) -> bool:
    """Whether clients upload squared gradients: only where the importance asks for them and something is pruned."""
    return IMPORTANCES.find(config.submodel.importance).from_clients and prunes(config)

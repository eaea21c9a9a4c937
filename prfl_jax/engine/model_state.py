"""What becomes of a model's state, such as running statistics, in a run (`model.state`), and where that is refused."""

from __future__ import annotations

from typing import Any

from prfl_jax.aggregate import AGGREGATIONS, find_aggregation
from prfl_jax.models import STATES, check_statistics
from prfl_jax.models.build import Model, flat_paths
from prfl_jax.models.variables import STATE
from prfl_jax.robustness.attacks import make_attack
from prfl_jax.submodel import find_submodel
from prfl_jax.system.errors import UserError


def leaves_that_stay(config: Any, model: Model) -> frozenset[str]:
    """Paths of the leaves that no client sends: their values at the server never change.

    Raises:
      UserError: the model cannot be used with this `model.state`.
    """
    use = STATES.find(config.model.state)
    if use.averaged:
        return frozenset()
    if not model.has_state:
        raise UserError(
            f"config.model.state={config.model.state!r}: {config.model.name!r} has no state; allowed: average, or a "
            "model with batch norm"
        )
    if use.recomputed:
        check_statistics(model)
    paths = flat_paths(model.shapes())
    of_state = {path for path in paths if path.startswith(f"{STATE}/")}
    stays = frozenset(of_state | (model.norm_leaves if use.personal else set()))
    if stays == paths.keys():
        raise UserError(
            f"config.model.state={config.model.state!r}: all params of {config.model.name!r} are in layers that have "
            "state, so that nothing would be sent; allowed: average"
        )
    return stays


def check_state(config: Any, model: Model) -> None:
    """Checks that a model's state can be treated as `model.state` says.

    Raises:
      UserError: it is averaged and the aggregation adds updates, which could make a variance negative; it stays with
        the clients, and sub-models take channels of it; or the run has an attack, a robust aggregation, clipping or
        noise, which do not account for what the state tells of the data.
    """
    if not model.has_state:
        return
    use, aggregation = STATES.find(config.model.state), config.aggregation
    choice = find_aggregation(aggregation.name)
    has = f"config.model.name={config.model.name!r} keeps running statistics"
    if choice.updates and use.averaged:
        fitting = ", ".join(AGGREGATIONS.with_trait(lambda other: not other.updates and not other.robust))
        raise UserError(
            f"config.aggregation.name={aggregation.name!r}: adds updates, and {has}, which may become negative so; "
            f"allowed: {fitting}, or model.state=local or static, or a model with GroupNorm or LayerNorm"
        )
    if use.personal and find_submodel(config.submodel).masks_state:
        # a client's own statistics of a channel that it is not sent would be those of zeros
        fitting = ", ".join(STATES.with_trait(lambda other: not other.personal))
        raise UserError(
            f"config.model.state={config.model.state!r}: allowed with submodel.name={config.submodel.name!r} is "
            f"{fitting}; {has}, which go with the channels of a sub-model"
        )
    seen = {
        "aggregation.name": (aggregation.name, choice.robust),
        "aggregation.clip_norm": (aggregation.clip_norm, aggregation.clip_norm is not None),
        "privacy.noise_multiplier": (config.privacy.noise_multiplier, bool(config.privacy.noise_multiplier)),
        "attack.name": (config.attack.name, make_attack(config.attack) is not None),
    }
    if use.personal:  # nothing of it leaves a client; but a malicious client's own model would be scored with the rest
        seen = {"attack.name": seen["attack.name"]}
    for key, (value, is_set) in seen.items():
        if is_set:
            why = "whose own models would be scored" if use.personal else "since those bypass it"
            raise UserError(
                f"config.{key}={value!r}: allowed with a model without statistics, {why}; {has} "
                "(take GroupNorm or LayerNorm)"
            )

"""Masks that the server keeps for all clients, pruned to a target density: SNIP, once, and iterative pruning.

In the federated forms of PruneFL's public code (Jiang et al. 2022), which compares with them; `shared_masks` computes
the masks. Weights never come back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from prfl_jax.submodel.rule import Network, SubmodelRule, Submodels
from prfl_jax.submodel.server_mask import Arrays, MaskInputs, PruningSettings, ServerMask
from prfl_jax.submodel.size import ModelSize
from prfl_jax.system.errors import UserError, refuse


@dataclasses.dataclass(frozen=True)
class ToDensity(SubmodelRule):
    """One mask for all clients, which ends at `pruning.density`.

    Attributes:
      mask: how and when it changes.
      counted: whether it does so in `pruning.times` steps, each at least a round, in the first half of all rounds.
    """

    mask: ServerMask
    counted: bool

    @property
    def server_masks(self) -> bool:
        return True

    @property
    def counts_rounds(self) -> bool:
        return self.counted

    def check(self, flat: Mapping[str, Any]) -> None:
        """There are enough rounds, and the last pruning is in one that comes, unless a horizon ends the run."""
        key = "rounds" if flat["pruning.rounds"] is None else "pruning.rounds"
        rounds, times = flat[key], flat["pruning.times"]
        if self.counted and rounds < 2 * times:
            allowed = f"at least {2 * times} with submodel.name={flat['submodel.name']!r} and pruning.times={times}"
            raise refuse(key, rounds, allowed)
        last = times * (rounds // (2 * times)) + 1  # the window of the last pruning (`iterative_due`)
        if self.counted and flat["horizon_s"] is None and flat["rounds"] < last:
            allowed = f"at least {last}, in which the last pruning is with pruning.rounds={rounds}; or a horizon_s"
            raise refuse("rounds", flat["rounds"], allowed)

    def fit(self, network: Network, name: str) -> Submodels:
        """A full mask, and how it changes."""
        return Submodels(network.size, server_mask=self.mask)

    def check_fitted(self, size: ModelSize, pruning: PruningSettings) -> None:
        """Each layer can keep a weight."""
        if (count := held_at(size.prunable, pruning.density)) < (layers := len(size.layers)):
            raise UserError(
                f"config.pruning.density={pruning.density}: keeps {count} of the {size.prunable:,} weights that can be "
                f"pruned; allowed is at least {layers / size.prunable:.2g}: one weight for each of the {layers} layers"
            )


def held_at(prunable: int, density: float) -> int:
    """Weights that are held at that density of all that can be pruned."""
    return round(density * prunable)


def _snip(inputs: MaskInputs, pruning: PruningSettings) -> Arrays:
    import jax.numpy as jnp

    from prfl_jax.submodel.shared_masks import snip_masks

    updates = tuple(after - before for after, before in zip(inputs.weights, inputs.before, strict=True))
    count = held_at(sum(mask.size for mask in inputs.masks), pruning.density)
    return snip_masks(inputs.before, updates, jnp.int32(count))


def _first(window: int, pruning: PruningSettings) -> bool:
    return window == 1


def _iterative(inputs: MaskInputs, pruning: PruningSettings) -> Arrays:
    import jax.numpy as jnp

    from prfl_jax.submodel.shared_masks import iterative_rate, remove_smallest

    rate = iterative_rate(pruning.density, pruning.times)
    return remove_smallest(inputs.weights, inputs.masks, jnp.float32(rate))


def _now_and_then(window: int, pruning: PruningSettings) -> bool:
    from prfl_jax.submodel.shared_masks import iterative_due

    return iterative_due(window - 1, pruning.rounds, pruning.times)


# values of `submodel.name`
SNIP = ToDensity(ServerMask(_snip, due=_first, reads_before=True), counted=False)
ITERATIVE = ToDensity(ServerMask(_iterative, due=_now_and_then), counted=True)

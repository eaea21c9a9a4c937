"""PruneFL's mask of all clients: after every `pruning.interval` windows small weights go, and some come back.

`prunefl` computes the masks. They follow from gradients that clients add up, and from the time that a weight costs.
"""

from __future__ import annotations

import dataclasses

from prfl_jax.submodel.rule import Network, SubmodelRule, Submodels
from prfl_jax.submodel.scores import GRADIENT_SUMS, Importance
from prfl_jax.submodel.server_mask import Arrays, MaskInputs, PruningSettings, ServerMask


@dataclasses.dataclass(frozen=True)
class PruneFL(SubmodelRule):
    """One mask for all clients, whose size follows from loss and time of a round."""

    @property
    def server_masks(self) -> bool:
        return True

    @property
    def evidence(self) -> Importance:
        """Squares of each client's sum of gradients."""
        return GRADIENT_SUMS

    def fit(self, network: Network, name: str) -> Submodels:
        """A full mask, and how it changes."""
        return Submodels(network.size, server_mask=ServerMask(_step, due=_every_interval))


def _step(inputs: MaskInputs, pruning: PruningSettings) -> Arrays:
    from prfl_jax.submodel.prunefl import prunefl_removal, prunefl_step

    return prunefl_step(
        inputs.weights, inputs.masks, inputs.squares, inputs.layer_s, prunefl_removal(inputs.window, pruning.share),
        inputs.constant_s, inputs.fixed_squares,
    )  # fmt: skip


def _every_interval(window: int, pruning: PruningSettings) -> bool:
    return window % pruning.interval == 0


# values of `submodel.name`
PRUNEFL = PruneFL()

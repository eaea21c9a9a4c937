"""PruneFL's mask of all clients (Jiang et al. 2022): small weights go, and some that pay come back.

It changes in a stage on one client's samples before window 1, and after every `pruning.interval` windows. `prunefl`
computes the masks. They follow from gradients that are added up, and from the time that a weight costs.
"""

from __future__ import annotations

import dataclasses

from prfl_jax.submodel.rule import Network, SubmodelRule, Submodels
from prfl_jax.submodel.scores import GRADIENT_SUMS, Importance
from prfl_jax.submodel.server_mask import Arrays, MaskInputs, PruningSettings, ServerMask


@dataclasses.dataclass(frozen=True)
class PruneFL(SubmodelRule):
    """One mask for all clients, whose size follows from loss and time of a round.

    Attributes:
      adaptive: whether it changes after the first stage.
      initial_rounds: of that stage at most, unless the config gives a number (IP_MAX_ROUNDS in its public code).
    """

    adaptive: bool = True
    initial_rounds: int = 1000

    @property
    def server_masks(self) -> bool:
        return True

    @property
    def first_stage(self) -> bool:
        return True

    @property
    def evidence(self) -> Importance | None:
        """Squares of each client's sum of gradients."""
        return GRADIENT_SUMS if self.adaptive else None

    def gradient_uploads(self, windows: int, pruning: PruningSettings) -> int:
        """As many as those for which `_every_interval` holds."""
        return max(windows - 1, 0) // pruning.interval if self.adaptive else 0

    def fit(self, network: Network, name: str) -> Submodels:
        """A full mask, and how it changes."""
        due = _every_interval if self.adaptive else _never
        return Submodels(network.size, server_mask=ServerMask(_step, due=due))


def _step(inputs: MaskInputs, pruning: PruningSettings) -> Arrays:
    import jax.numpy as jnp

    from prfl_jax.submodel.prunefl import prunefl_removal, prunefl_step

    removal = prunefl_removal(jnp.maximum(inputs.window - 1, 0), pruning.share)  # its rounds are numbered from 0
    return prunefl_step(
        inputs.weights, inputs.masks, inputs.squares, inputs.layer_s, removal, inputs.constant_s, inputs.fixed_squares
    )


def _every_interval(window: int, pruning: PruningSettings) -> bool:
    """As in PruneFL's public code, whose rounds are numbered from 0."""
    return window > 1 and (window - 1) % pruning.interval == 0


def _never(window: int, pruning: PruningSettings) -> bool:
    return False


# values of `submodel.name`
PRUNEFL, CONVENTIONAL = PruneFL(), PruneFL(adaptive=False)

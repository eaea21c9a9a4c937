"""Edge pruning's masks (Zhou et al. 2024): each client chooses its own, the server's follows from their votes.

The client's part is `local/personal.py`. A weight is in the server's mask if enough of all N clients hold it (Algorithm
3, line 7), by the last masks that the server has of them. The initial stage repeats local pruning from the server's
mask: by votes alone (Eq. 5, `threshold`), or layer by layer (Algorithm 1, `layerwise`), where the inner layers keep
what all clients hold.
"""

from __future__ import annotations

import dataclasses

from prfl_jax.submodel.client_masks import BY_SHARE, SHARE_BY_DENSITY, SIZE_BY_DENSITY, ClientMasks
from prfl_jax.submodel.rule import Network, SubmodelRule, Submodels
from prfl_jax.submodel.server_mask import Arrays, MaskInputs, PruningSettings, ServerMask
from prfl_jax.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class Personal(SubmodelRule):
    """Masks of clients, and the server's from their votes.

    Attributes:
      layerwise: whether the initial stage is Algorithm 1's; else it is that of Eq. 5.
      initial_rounds: of the initial stage at most, unless the config gives a number.
      client_masks: how clients choose theirs.
    """

    layerwise: bool
    initial_rounds: int
    client_masks: ClientMasks = BY_SHARE

    @property
    def server_masks(self) -> bool:
        return True

    def fit(self, network: Network, name: str) -> Submodels:
        """Full masks before the first pruning, and how votes change the server's."""
        paths = tuple(network.shapes) if network.masked is None else network.masked
        read = [path for path in network.order if path in paths]
        if self.layerwise and not read:
            raise UserError(
                f"config.submodel.name={name!r}: no product of the model reads a weight that is pruned, so that its "
                "input and output layers are not known; allowed: threshold"
            )
        ends = tuple(paths.index(path) for path in (*read[:1], *read[-1:]))

        def initial(inputs: MaskInputs, settings: PruningSettings) -> Arrays:
            from prfl_jax.submodel import votes

            if self.layerwise:
                return votes.layerwise(inputs.votes, settings.clients, settings.initial_least, ends)
            return votes.by_threshold(inputs.votes, settings.initial_least)

        return Submodels(network.size, server_mask=ServerMask(_by_votes, initial))


def _by_votes(inputs: MaskInputs, settings: PruningSettings) -> Arrays:
    """Algorithm 3, line 7."""
    from prfl_jax.submodel import votes

    return votes.by_threshold(inputs.votes, settings.least)


# values of `submodel.name`
LAYERWISE, THRESHOLD = Personal(layerwise=True, initial_rounds=10), Personal(layerwise=False, initial_rounds=1)
# and with what a density policy decides for each client
OWN_SHARES = Personal(layerwise=True, initial_rounds=10, client_masks=SHARE_BY_DENSITY)
OWN_SIZES = Personal(layerwise=False, initial_rounds=0, client_masks=SIZE_BY_DENSITY)

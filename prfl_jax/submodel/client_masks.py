"""`ClientMasks`: how a client chooses its own masks in a pruning round (NumPy only).

Edge pruning's clients prune a share of their weights that is the same for all (`pruning.share`). Where a density policy
decides for each client, its density is the share that stays before any comes back, or the size of the mask.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

Arrays = tuple[Any, ...]

# (weights, masks, squared gradients, `pruning.share` in millionths, density in percent) -> the next masks, traced; the
# arrays as in `prune_locally`, the numbers int32 scalars
Choose = Callable[[Arrays, Arrays, Arrays, Any, Any], Arrays]


@dataclasses.dataclass(frozen=True)
class ClientMasks:
    """One way to choose.

    Attributes:
      choose: the masks.
      by_density: whether they follow from the client's density, which a density policy decides.
    """

    choose: Choose
    by_density: bool = False


def _by_share(weights: Arrays, masks: Arrays, squares: Arrays, share: Any, percent: Any) -> Arrays:
    from prfl_jax.submodel.local_pruning import prune_locally

    return prune_locally(weights, masks, squares, share)


def _share_by_density(weights: Arrays, masks: Arrays, squares: Arrays, share: Any, percent: Any) -> Arrays:
    from prfl_jax.submodel.local_pruning import prune_locally

    return prune_locally(weights, masks, squares, (100 - percent) * 10_000)


def _size_by_density(weights: Arrays, masks: Arrays, squares: Arrays, share: Any, percent: Any) -> Arrays:
    from prfl_jax.submodel.local_pruning import prune_to_density

    return prune_to_density(weights, masks, squares, share, percent)


# Algorithm 2 as it is, and with the share 1 - density; masks that hold the density
BY_SHARE = ClientMasks(_by_share)
SHARE_BY_DENSITY = ClientMasks(_share_by_density, by_density=True)
SIZE_BY_DENSITY = ClientMasks(_size_by_density, by_density=True)

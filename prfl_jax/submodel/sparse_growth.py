"""Masks of a fixed size whose weights are exchanged: small ones go, those with large gradients come (FedDST, FedTiny).

FedDST (Bibikar et al. 2022): each client exchanges weights as RigL does (Evci et al. 2020); the server averages over
the holders of each weight and prunes by magnitude to each layer's count (`shared_masks.to_counts`). FedTiny (Huang et
al. 2023), its progressive pruning: the server exchanges weights by the clients' averaged gradients. Sources: FedDST's
public code (`dst.py`, `models.py`), the public library FedPruning by FedTiny's authors (`api/pruning/init_scheme.py`,
`api/distributed/fedtiny`), RigL's public code (`rigl/sparse_utils.py`, `rigl/sparse_optimizers_base.py`).

A weight that was not held before starts at 0 in both methods.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from prfl_jax.submodel.largest import Arrays, largest_by_layer
from prfl_jax.submodel.shared_masks import count_held, magnitudes, remove_smallest


def grow(masks: Arrays, gradients: Arrays, counts: jax.Array) -> Arrays:
    """Which weights that are not held come into each layer: those of largest gradient magnitude; ties by position.

    Args:
      masks: of the weights that are held.
      counts: int32 `[leaves]`, how many come; where fewer are not held, all of these.
    """
    return largest_by_layer(magnitudes(gradients), counts, among=tuple(~mask for mask in masks))


def dst_readjust(weights: Arrays, masks: Arrays, gradients: Arrays, share: jax.Array) -> Arrays:
    """A FedDST client's next masks: `share` of each layer goes by magnitude, as many come by gradient.

    A removed weight may come back, as in RigL: the candidates are all weights that are not held after the removal. So
    each layer keeps its count, also a full one. (FedDST's public code takes the largest gradients of all weights, the
    held ones too, after which a layer holds fewer.)

    Args:
      gradients: of the client's loss, dense, of one batch after the training.
      share: scalar in [0, 1] (`cosine_share`).
    """
    kept = remove_smallest(weights, masks, share)
    grown = grow(kept, gradients, count_held(masks) - count_held(kept))
    return tuple(old | new for old, new in zip(kept, grown, strict=True))


def tiny_adjust(weights: Arrays, masks: Arrays, gradients: Arrays, counts: jax.Array) -> Arrays:
    """FedTiny's next masks: in each layer weights come by gradient, and as many of the others go by magnitude.

    Both choices are made from the same mask, so no weight goes and comes back. (The authors' library removes first
    and lets the removed come back.)

    Args:
      gradients: averaged over the clients; those of held weights are not read.
      counts: int32 `[leaves]`, how many are exchanged (`tiny_counts`; 0 in a layer that is not in this round's block);
        at most as many as are not held, and fewer than are held: one of them stays.
    """
    held = count_held(masks)
    free = jnp.array([mask.size for mask in masks], jnp.int32) - held
    exchanged = jnp.clip(jnp.minimum(counts, held - 1), 0, free)
    kept = largest_by_layer(magnitudes(weights), held - exchanged, among=masks)
    grown = grow(masks, gradients, exchanged)
    return tuple(old | new for old, new in zip(kept, grown, strict=True))


def cosine_share(first: float, round_number: int, last_round: int) -> float:
    """The share that is exchanged in a round: first / 2 x (1 + cos(pi x round / last round)); 0 from the last one on.

    Both methods lower it so, as RigL does; FedDST's `first` is its readjustment ratio.
    """
    return first / 2.0 * (1.0 + math.cos(math.pi * min(round_number / last_round, 1.0)))


def tiny_counts(round_number: int, last_round: int, held: np.ndarray, first: float = 0.2) -> np.ndarray:
    """How many weights of each layer FedTiny exchanges in a round: floor(`cosine_share` x held), int32 `[leaves]`.

    Args:
      held: int `[leaves]`, weights that each layer holds.
      first: the share in round 0; 0.2 in the authors' library.
    """
    return np.floor(cosine_share(first, round_number, last_round) * np.asarray(held)).astype(np.int32)


def erk_counts(shapes: Sequence[tuple[int, ...]], density: float) -> np.ndarray:
    """Weights of each layer by the Erdos-Renyi kernel rule (Evci et al. 2020), int64 `[leaves]`.

    A layer's density is proportional to the sum of its kernel's sizes over their product, (n_in + n_out + height +
    width) / (n_in n_out height width) for a convolution. A layer that would be above 1 is full, and the others share
    what is left. The rounding is RigL's: of each layer floor((1 - density) x size) weights are left out.

    Args:
      shapes: of the kernels.
      density: of all layers together.

    Raises:
      ValueError: a density outside (0, 1].
    """
    if not 0.0 < density <= 1.0:
        raise ValueError(f"density {density} is not in (0, 1]")
    sizes = np.array([math.prod(shape) for shape in shapes], np.int64)
    ratios = np.array([sum(shape) for shape in shapes]) / sizes
    densities = np.ones(len(shapes))
    full = np.zeros(len(shapes), bool)
    while not full.all():
        left = density * sizes.sum() - sizes[full].sum()
        wanted = ratios * left / (ratios * sizes)[~full].sum()
        if wanted[~full].max() <= 1.0:
            densities[~full] = wanted[~full]
            break
        full |= ~full & (ratios == ratios[~full].max())
    return sizes - np.floor((1.0 - densities) * sizes).astype(np.int64)

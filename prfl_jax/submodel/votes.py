"""The server's masks from the votes of the clients' masks (edge pruning), and how similar these are.

A layer never becomes empty: where no weight has enough votes, all weights with the most votes stay.
"""

from __future__ import annotations

from collections.abc import Collection

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.masks import bit_planes

_CHUNK = 4096  # bytes of each client's mask that are compared at a time


def count_votes(layout: Layout, bits: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """How many clients keep each weight.

    Args:
      bits: masks of N clients, packed `[N, ceil(n/8)]` uint8 a prunable leaf. They are unpacked one by one.

    Returns:
      int32 arrays in the leaves' shapes.
    """

    def leaf(packed: jax.Array, n: int) -> jax.Array:
        start = jnp.zeros((8, packed.shape[1]), jnp.int32)
        planes = lax.fori_loop(0, packed.shape[0], lambda k, votes: votes + bit_planes(packed[k]), start)
        return planes.reshape(-1)[:n]

    sized = zip(bits, layout.sizes(), layout.prunable, strict=True)
    return tuple(leaf(jnp.asarray(packed), n).reshape(layout.shapes[i]) for packed, n, i in sized)


def by_threshold(votes: tuple[jax.Array, ...], least: int | jax.Array) -> tuple[jax.Array, ...]:
    """Masks of the weights with at least `least` votes (Eq. 5; Algorithm 3, line 7)."""
    return tuple(_enough(leaf, least) for leaf in votes)


def layerwise(
    votes: tuple[jax.Array, ...], clients: int | jax.Array, least: int | jax.Array, ends: Collection[int]
) -> tuple[jax.Array, ...]:
    """Masks by layer (Algorithm 1, lines 5-14).

    Args:
      votes: int32, one array a prunable leaf.
      clients: that voted; a weight of an inner layer stays if all of them keep it (the product of their masks).
      least: votes with which a weight of the input or output layer stays.
      ends: positions of these layers among the prunable leaves.
    """
    return tuple(_enough(leaf, least if i in ends else clients) for i, leaf in enumerate(votes))


def _enough(votes: jax.Array, least: int | jax.Array) -> jax.Array:
    return votes >= jnp.minimum(least, jnp.max(votes))


def similarity(bits: tuple[np.ndarray, ...]) -> np.ndarray:
    """How similar the clients' masks are: weights that two clients keep over weights that one of them keeps (Jaccard).

    Args:
      bits: masks of N clients, packed `[N, ceil(n/8)]` uint8 a prunable leaf. Each holds a weight or more.

    Returns:
      `[N, N]` float64 over all leaves, 1 on the diagonal.
    """
    both = np.zeros((len(bits[0]),) * 2)
    for packed in map(np.asarray, bits):
        for start in range(0, packed.shape[1], _CHUNK):
            kept = np.unpackbits(packed[:, start : start + _CHUNK], axis=1).astype(np.float32)
            both += kept @ kept.T  # exact: whole numbers below 2^24
    each = np.diag(both)
    return both / (each[:, None] + each[None, :] - both)

"""The delta split (Algorithm 3, Eq. 12-13): splits a model into increments, merges a prefix of them, counts them."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.thresholds import count_each


@partial(jax.jit, static_argnames=("layout",))
def split_model(params: Any, levels: tuple[jax.Array, ...], density_pct: jax.Array, *, layout: Layout) -> Any:
    """The increments of one model, by ascending density (Eq. 12).

    Args:
      params: W, a pytree.
      levels: int8 levels in the shapes of the prunable leaves.
      percents: int32 `[K]` ascending, the distinct densities sent.

    Returns:
      A pytree of `[K, ...]`: increment k holds the weights with
      `density_pct[k-1] < level <= percents[k]`, exactly 0 elsewhere. What is never pruned
      (biases) travels in increment 0.
    """
    lower = jnp.concatenate([jnp.zeros(1, density_pct.dtype), density_pct[:-1]])

    def leaf_increments(w: jax.Array, level: jax.Array | None) -> jax.Array:
        if level is None:
            return jnp.zeros((density_pct.shape[0], *w.shape), w.dtype).at[0].set(w)
        wide = level.astype(density_pct.dtype)[None]
        shape = (-1,) + (1,) * w.ndim
        inside = (wide > lower.reshape(shape)) & (wide <= density_pct.reshape(shape))
        return jnp.where(inside, w[None], jnp.zeros((), w.dtype))

    by_leaf = dict(zip(layout.prunable, levels, strict=True))
    leaves = [leaf_increments(w, by_leaf.get(i)) for i, w in enumerate(jax.tree.leaves(params))]
    return jax.tree.unflatten(layout.treedef, leaves)


@jax.jit
def merge_increments(increments: Any, index: jax.Array) -> Any:
    """What a client with `Index = [1, index + 1]` (Eq. 13) puts together: the first increments, summed.

    Each weight lies in one increment at most and is 0 in the others, so summing means
    joining the bits, which is exact (for -0 too).

    Args:
      increments: pytree of `[K, ...]` from `split_model`.
      index: the client's own increment, 0..K-1.
    """

    def merge(parts: jax.Array) -> jax.Array:
        taken = jnp.arange(parts.shape[0]) <= index
        bits = lax.bitcast_convert_type(parts, f"uint{8 * parts.dtype.itemsize}")
        bits = jnp.where(taken.reshape(-1, *([1] * (parts.ndim - 1))), bits, 0)
        return lax.bitcast_convert_type(jnp.bitwise_or.reduce(bits, axis=0), parts.dtype)

    return jax.tree.map(merge, increments)


@jax.jit
def count_levels(levels: tuple[jax.Array, ...], density_pct: jax.Array) -> jax.Array:
    """Weights each sub-model holds in each leaf: int32 `[K, leaves]`.

    The differences along K are the sizes of the increments, which is what the delta
    split sends; the clock's byte counts are checked against them.
    """

    def of_leaf(level: jax.Array) -> jax.Array:
        flat, percents = level.reshape(-1), density_pct.astype(jnp.int8)
        return count_each(jnp.less_equal, flat, percents)

    return jnp.stack([of_leaf(level) for level in levels], axis=1)

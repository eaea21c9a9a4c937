"""Exact choices of the largest scores on the device, over all leaves together or in each layer; ties by position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from prfl_jax.submodel.thresholds import count as number_of
from prfl_jax.submodel.thresholds import first_ties, highest_key, score_keys

Arrays = tuple[jax.Array, ...]


def _keys(scores: Arrays, among: Arrays | None) -> Arrays:
    """Keys `[n]` of each leaf; -1 for what cannot be chosen."""
    keys = tuple(score_keys(score) for score in scores)
    if among is None:
        return keys
    return tuple(jnp.where(here.reshape(-1), key, -1) for key, here in zip(keys, among, strict=True))


def _shaped(flags: Any, scores: Arrays) -> Arrays:
    return tuple(flag.reshape(score.shape) for flag, score in zip(flags, scores, strict=True))


def largest(scores: Arrays, count: jax.Array, among: Arrays | None = None) -> Arrays:
    """Whether each value is among the `count` largest of all leaves together; ties by position, leaf after leaf.

    Args:
      scores: >= 0, one array a leaf.
      count: int32 scalar, from 0 to the number of values that can be chosen.
      among: booleans in the leaves' shapes, which values can be chosen; None: all.

    Returns:
      Booleans in the leaves' shapes, exactly `count` of them true.
    """
    keys = _keys(scores, among)

    def number(flags: Callable[[jax.Array], jax.Array]) -> Any:
        return sum(number_of(flags(key)) for key in keys)

    threshold = highest_key(lambda least: number(lambda key: key >= least) >= count)
    above, reach = number(lambda key: key > threshold), number(lambda key: key >= threshold)

    def split_ties() -> Arrays:
        left, out = count - above, []
        for key in keys:
            out.append(first_ties(key, threshold, left))
            left = left - number_of(key == threshold)
        return tuple(out)

    # positions are counted, which is slow, only where some ties are chosen and others are not
    chosen = lax.cond(reach > count, split_ties, lambda: tuple(key >= threshold for key in keys))
    return _shaped(chosen, scores)


def largest_by_layer(scores: Arrays, counts: jax.Array, among: Arrays | None = None) -> Arrays:
    """Whether each value is among the largest of its own leaf; ties by position.

    Args:
      scores: >= 0, one array a leaf.
      counts: int32 `[leaves]`, each at least 0; a leaf with fewer values that can be chosen gives them all.
      among: booleans in the leaves' shapes, which values can be chosen; None: all.

    Returns:
      Booleans in the leaves' shapes.
    """
    keys = _keys(scores, among)

    def number(flags: Callable[[jax.Array, jax.Array], jax.Array], thresholds: jax.Array) -> jax.Array:
        each = (flags(key, threshold) for key, threshold in zip(keys, thresholds, strict=True))
        return jnp.stack(list(map(number_of, each)))

    thresholds = highest_key(lambda least: number(jnp.greater_equal, least) >= counts, counts.shape)
    left, reach = counts - number(jnp.greater, thresholds), number(jnp.greater_equal, thresholds)
    chosen = lax.cond(
        jnp.any(reach > counts),
        lambda: tuple(first_ties(*item) for item in zip(keys, thresholds, left, strict=True)),
        lambda: tuple(key >= threshold for key, threshold in zip(keys, thresholds, strict=True)),
    )
    return _shaped(chosen, scores)

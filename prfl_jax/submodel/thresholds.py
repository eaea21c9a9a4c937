"""Thresholds that cut exact numbers of the largest scores off, and what lies above them.

For floats >= 0 the order of the bit patterns is the order of the values, so 31 counts find a threshold by bisection.
Nothing is sorted or scattered on the device. Ties go by position, so the counts are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from prfl_jax.system import accelerator

_ROWS = 64  # at most what an int8 counts
_NONE = jnp.iinfo(jnp.int32).max  # a key that no score reaches


class Cut(NamedTuple):
    """Where K choices of the largest scores end; a choice of none has a key that no score reaches.

    Attributes:
      key: int32 `[K]`, the least key (`score_keys`) that is chosen.
      ties: int32 `[K]`, how many of the scores equal to it are chosen, the first by position.
      some: bool `[K]`, whether these are not all of them.
    """

    key: Any
    ties: Any
    some: Any


def score_keys(score: jax.Array) -> jax.Array:
    """Scores >= 0 `[...]` float32 to int32 keys `[n]` of the same order."""
    clean = jnp.maximum(score.reshape(-1).astype(jnp.float32), 0.0)  # also turns -0 into 0
    return lax.bitcast_convert_type(clean + 0.0, jnp.int32)


def count(flags: jax.Array) -> jax.Array:
    """How many flags `[n]` are true, int32.

    XLA adds a vector up one by one on a CPU, but the rows of a matrix many columns at a time, the more the fewer bytes
    a sum has.
    """
    if not accelerator.on_cpu():
        return jnp.sum(flags, dtype=jnp.int32)
    columns = -(-flags.size // _ROWS)
    rows = jnp.pad(flags, (0, _ROWS * columns - flags.size)).reshape(_ROWS, columns)
    return jnp.sum(jnp.sum(rows, axis=0, dtype=jnp.int8), dtype=jnp.int32)


def count_each(compare: Callable[..., Any], values: jax.Array, thresholds: jax.Array) -> jax.Array:
    """How many values `[n]` compare so with each threshold `[K]`, int32 `[K]`."""
    if accelerator.on_cpu():
        return lax.map(lambda threshold: count(compare(values, threshold)), thresholds)
    return jnp.sum(compare(values[None], thresholds[:, None]), axis=1, dtype=jnp.int32)  # in one operation


def highest_key(holds: Callable[[jax.Array], jax.Array], shape: tuple[int, ...] = ()) -> jax.Array:
    """The highest int32 key (`score_keys`) for which a condition holds, by bisection; for several at once.

    Args:
      holds: from keys `[*shape]` to booleans `[*shape]`; true for key 0, and for no key above one where it is false.
      shape: of the keys that are looked for.
    """

    def narrow(bit: jax.Array, key: jax.Array) -> jax.Array:
        higher = key | (jnp.int32(1) << (30 - bit))
        return jnp.where(holds(higher), higher, key)

    return lax.fori_loop(0, 31, narrow, jnp.zeros(shape, jnp.int32))


def find_cut(number: Callable[[Callable[..., Any], jax.Array], jax.Array], need: jax.Array) -> Cut:
    """The cut above which `need` `[K]` scores lie, from 0 to as many as there are.

    Args:
      number: (comparison, keys `[K]`) -> int32 `[K]`, how many scores' keys compare so with each key.
    """
    key = highest_key(lambda least: number(jnp.greater_equal, least) >= need, need.shape)
    reach, above = number(jnp.greater_equal, key), number(jnp.greater, key)
    return Cut(jnp.where(need > 0, key, _NONE), need - above, (need > 0) & (reach > need))


def first_ties(key: jax.Array, threshold: jax.Array, ties: jax.Array) -> jax.Array:
    """Whether each key is above the threshold, or one of the first so many that are equal to it."""
    rank = jnp.cumsum(key == threshold, dtype=jnp.int32)  # 1, 2, ... among the ties
    return (key > threshold) | ((key == threshold) & (rank <= ties))

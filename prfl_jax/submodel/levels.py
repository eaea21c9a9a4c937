"""Prunes (Algorithm 1, line 23): turns importance scores into nested sub-models, one level per weight.

Each layer first keeps its own top `min_percent` share, then the best of all layers
together are added up to each density's exact count, so no layer empties. Ties are broken
by position, so the counts are exact. Thresholds are found by bisection on the device
(`thresholds.py`), on a CPU by sorting (`host_thresholds.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prfl_jax.submodel.host_thresholds import SortedKeys, histogram, settle_ties
from prfl_jax.submodel.size import ModelSize
from prfl_jax.submodel.split import count_levels
from prfl_jax.submodel.thresholds import Cut, count, count_each, find_cut, first_ties, score_keys
from prfl_jax.system import accelerator

Arrays = tuple[jax.Array, ...]
MANY_TIES = 0.05  # of all scores; so many are settled on the device
NOWHERE = 101  # the level of a weight that no density includes


def _find_cuts(keys: Arrays, base: tuple[int, ...], need: jax.Array) -> tuple[Cut, Cut]:
    """The cuts of each leaf's own `base` largest `[leaves]`, and of the `need` largest `[K]` of all that are left."""
    own = jnp.asarray(base, jnp.int32)

    def in_leaves(compare: Callable[..., Any], thresholds: jax.Array) -> jax.Array:
        return jnp.stack([count(compare(key, t)) for key, t in zip(keys, thresholds, strict=True)])

    def left(compare: Callable[..., Any], thresholds: jax.Array) -> jax.Array:
        total = jnp.zeros(thresholds.shape, jnp.int32)
        for key, kept in zip(keys, base, strict=True):  # a leaf's own are its largest
            total += jnp.maximum(count_each(compare, key, thresholds) - kept, 0)
        return total

    return find_cut(in_leaves, own), find_cut(left, need)


def _levels_above(keys: Arrays, own: Cut, rest: Cut, density_pct: jax.Array) -> Arrays:
    """Levels int8 `[n]` a leaf: of what lies above each leaf's own cut, and between those `[K]` of all that is left."""
    chosen = lax.cond(
        jnp.any(own.some),
        lambda: tuple(map(first_ties, keys, own.key, own.ties)),
        lambda: tuple(key >= least for key, least in zip(keys, own.key, strict=True)),
    )
    late = lax.cond(
        jnp.any(rest.some),
        lambda: _late_ties(keys, chosen, rest),
        lambda: tuple(jnp.zeros(key.shape, jnp.int8) for key in keys),
    )
    return tuple(
        _level(is_own, _left_out_by(key, rest) + more, density_pct)
        for key, is_own, more in zip(keys, chosen, late, strict=True)
    )


def _left_out_by(key: jax.Array, cut: Cut) -> Any:
    """By how many k each weight is left out, all that are equal to a threshold being taken."""
    return sum((key < least).astype(jnp.int8) for least in cut.key)


def _level(is_own: jax.Array, left_out_by: jax.Array, density_pct: jax.Array) -> jax.Array:
    """The least density that includes each weight."""
    found = jnp.full(left_out_by.shape, NOWHERE, jnp.int8)
    for k in range(len(density_pct) - 1, -1, -1):
        found = jnp.where(left_out_by <= k, density_pct[k].astype(jnp.int8), found)
    return jnp.where(is_own, density_pct[0].astype(jnp.int8), found)


def _late_ties(keys: Arrays, chosen: Arrays, cut: Cut) -> Arrays:
    """For each weight, by how many k it is left out although its key equals their threshold; int8 `[n]` a leaf."""

    def one(k: jax.Array, excluded: Arrays) -> Arrays:
        def count_out() -> Arrays:
            before = jnp.int32(0)
            out = []
            for key, own, so_far in zip(keys, chosen, excluded, strict=True):
                tie = (key == cut.key[k]) & ~own
                rank = before + jnp.cumsum(tie.astype(jnp.int32))  # 1, 2, ... among the ties
                out.append(so_far + (tie & (rank > cut.ties[k])).astype(jnp.int8))
                before = rank[-1]
            return tuple(out)

        return lax.cond(cut.some[k], count_out, lambda: excluded)

    start = tuple(jnp.zeros(key.shape, jnp.int8) for key in keys)
    return lax.fori_loop(0, cut.key.shape[0], one, start)


@partial(jax.jit, static_argnames=("base",))
def compute_levels(scores: Arrays, density_pct: jax.Array, counts: jax.Array, *, base: tuple[int, ...]) -> Arrays:
    """Levels of every weight for all densities at once.

    Args:
      scores: importance >= 0, one array a prunable leaf, in its shape.
      density_pct: int32 `[K]`, the densities in use, ascending.
      counts: int32 `[K]`, weights each keeps in all (`ModelSize.count`), ascending, at least `sum(base)`.
      base: weights each leaf keeps in every sub-model (`ModelSize.base_counts`).

    Returns:
      int8 arrays in the leaves' shapes: the smallest density that includes the weight; 101 where none does.
    """
    keys = tuple(score_keys(score) for score in scores)
    own, rest = _find_cuts(keys, base, counts - sum(base))
    return _shaped(_levels_above(keys, own, rest, density_pct), scores)


def _shaped(levels: Arrays, scores: Sequence[Any]) -> Arrays:
    return tuple(level.reshape(score.shape) for level, score in zip(levels, scores, strict=True))


@partial(jax.jit, static_argnames=("base",))
def counted_levels(
    scores: Arrays, density_pct: jax.Array, counts: jax.Array, *, base: tuple[int, ...]
) -> tuple[Arrays, jax.Array, jax.Array]:
    """`compute_levels`, `[K, leaves]` how many weights each density holds, and whether all scores are finite.

    One call, since a method that prunes in every window waits for each.
    """
    levels = compute_levels(scores, density_pct, counts, base=base)
    return levels, count_levels(levels, density_pct), _finite(scores)


def _finite(scores: Arrays) -> jax.Array:
    return jnp.stack([jnp.isfinite(score).all() for score in scores]).all()


@jax.jit
def _finite_keys(scores: Arrays) -> tuple[Arrays, jax.Array]:
    return tuple(score_keys(score) for score in scores), _finite(scores)


@jax.jit
def _with_all_ties(scores: Arrays, keys: Arrays, own: Cut, rest: Cut, density_pct: jax.Array) -> tuple[Arrays, Arrays]:
    """(levels if all scores equal to a threshold were taken, which scores are equal to one that takes some)."""
    levels, ties = [], []
    for key, least, some in zip(keys, own.key, own.some, strict=True):
        levels.append(_level(key >= least, _left_out_by(key, rest), density_pct))
        tie = some & (key == least)
        for k in range(len(density_pct)):
            tie |= rest.some[k] & (key == rest.key[k])
        ties.append(tie)
    return _shaped(tuple(levels), scores), tuple(ties)


@jax.jit
def _by_position(scores: Arrays, keys: Arrays, own: Cut, rest: Cut, density_pct: jax.Array) -> Arrays:
    return _shaped(_levels_above(keys, own, rest, density_pct), scores)


def counted_levels_on_host(
    scores: Arrays, density_pct: np.ndarray, counts: np.ndarray, *, base: tuple[int, ...]
) -> tuple[Arrays, np.ndarray, bool]:
    """`counted_levels` where the device is the host: the same, in a tenth of the time."""
    keys, finite = _finite_keys(scores)
    on_host = [np.asarray(key) for key in keys]
    own, rest = (Cut(*cut) for cut in SortedKeys(on_host).cuts(base, counts - sum(base)))
    levels, ties = _with_all_ties(scores, keys, own, rest, density_pct)
    if own.some.any() or rest.some.any():
        places = [np.flatnonzero(tie) for tie in ties]
        if sum(map(len, places)) > MANY_TIES * sum(key.size for key in on_host):
            levels = _by_position(scores, keys, own, rest, density_pct)
        else:
            by_index = np.append(density_pct, NOWHERE).astype(np.int8)
            levels = tuple(map(jnp.asarray, settle_ties(on_host, levels, places, own, rest, by_index)))
    held = [np.cumsum(histogram(np.asarray(level)))[density_pct] for level in levels]
    return levels, np.stack(held, axis=1), bool(finite)


def find_levels(
    scores: Arrays, density_pct: np.ndarray, counts: np.ndarray, *, base: tuple[int, ...]
) -> tuple[Arrays, Any, Any]:
    """`counted_levels`, on a CPU by its faster way."""
    find = counted_levels_on_host if accelerator.on_cpu() else counted_levels
    return find(scores, density_pct, counts, base=base)


def prune(scores: Arrays, density_pct: np.ndarray, size: ModelSize) -> tuple[Arrays, np.ndarray]:
    """Levels of a new generation of nested sub-models, from scores that are on the device.

    Args:
      scores: importance, one array a prunable leaf, in its shape.
      density_pct: `[M]` densities (percent) of the clients.
      size: of the model.

    Returns:
      int8 levels in the leaves' shapes; `[M]` the share of the leaves' forward FLOP that each client's weights have.

    Raises:
      FloatingPointError: a score is not finite.
      RuntimeError: the counts on the device differ from those the clock charges.
    """
    padded = padded_densities(density_pct)
    counts = [size.count(p) for p in padded]
    percents = np.asarray(padded, np.int32)
    levels, held, finite = find_levels(scores, percents, np.asarray(counts, np.int32), base=size.base_counts())
    if not finite:
        raise FloatingPointError("an importance score is not finite")
    held = np.asarray(held)  # [K, leaves]
    if held.sum(axis=1).tolist() != counts:
        raise RuntimeError(f"levels hold {held.sum(axis=1).tolist()} weights, the clock charges {counts}")
    flop = np.asarray(size.layer_flop)
    whole = flop.sum() or 1.0
    share = {p: float(flop @ (held[k] / np.asarray(size.layers)) / whole) for k, p in enumerate(padded)}
    return levels, np.array([share[int(p)] for p in density_pct])


def padded_densities(density_pct: np.ndarray) -> list[int]:
    """The densities in use and 100, ascending, padded with 100 to one length for every generation of M clients."""
    used = sorted({int(p) for p in density_pct} | {100})
    return used + [100] * (number_of_densities(len(density_pct)) - len(used))


def number_of_densities(clients: int) -> int:
    """How many different densities M clients can have, 100 included."""
    return min(clients + 1, 100)

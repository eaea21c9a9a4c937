"""Prunes (Algorithm 1, line 23): turns importance scores into nested sub-models, one level per weight.

Each layer first keeps its own top `min_percent` share, then the best of all layers
together are added up to each density's exact count, so no layer empties. Thresholds
come from histograms of the scores' bit patterns (for floats >= 0 the order of the
patterns is the order of the values): one pass over the high 16 bits, one over the low
15 bits inside the few bins that matter. Ties are broken by position, so the counts
are exact.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prfl_jax.submodel.size import ModelSize
from prfl_jax.submodel.split import count_levels

HIGH, LOW = 1 << 16, 1 << 15
_LOW_BITS = 15


def score_keys(score: jax.Array) -> jax.Array:
    """Scores >= 0 `[...]` float32 to int32 keys `[n]` of the same order."""
    clean = jnp.maximum(score.reshape(-1).astype(jnp.float32), 0.0)  # also turns -0 into 0
    return lax.bitcast_convert_type(clean + 0.0, jnp.int32)


def _find_bins(histogram: jax.Array, need: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The bin in which the `need`-th largest lies, and how many of that bin are needed.

    Args:
      histogram: counts by ascending key `[bins]`.
      need: `[K]`, each between 1 and the sum of the histogram, or 0 for "none".

    Returns:
      (bin `[K]`, needed from it `[K]`).
    """
    at_least = jnp.cumsum(histogram[::-1])[::-1]  # how many in this bin or above
    # the last bin whose tail still reaches need
    bins = jnp.sum(at_least[None, :] >= need[:, None], axis=1, dtype=jnp.int32) - 1
    bins = jnp.maximum(bins, 0)
    return bins, need - (at_least[bins] - histogram[bins])


def _select(keys: tuple[jax.Array, ...], alive: tuple[jax.Array | None, ...], need: jax.Array) -> tuple[jax.Array, ...]:
    """The largest `need[k]` of all alive keys together, nested over k.

    Args:
      keys: int32 `[n]` per leaf, >= 0.
      alive: bool `[n]` per leaf, or None for all.
      need: int32 `[K]`, ascending.

    Returns:
      Per leaf int32 `[n]`: the index of the first k that selects it; K where none does.
    """
    count = need.shape[0]
    high_histogram = jnp.zeros(HIGH, jnp.int32)
    for key, ok in zip(keys, alive, strict=True):
        bins = key >> _LOW_BITS
        bins = bins if ok is None else jnp.where(ok, bins, HIGH)
        high_histogram = high_histogram.at[bins].add(1, mode="drop")
    high, rest = _find_bins(high_histogram, need)
    # Several k may share a bin: the first one owns its row of the second histogram.
    owner = jnp.argmax(high[None, :] == high[:, None], axis=1)
    row_of_bin = jnp.full(HIGH, count, jnp.int32).at[high].set(owner.astype(jnp.int32))
    low_histogram = jnp.zeros((count, LOW), jnp.int32)
    for key, ok in zip(keys, alive, strict=True):
        row = row_of_bin[key >> _LOW_BITS]
        row = row if ok is None else jnp.where(ok, row, count)
        low_histogram = low_histogram.at[row, key & (LOW - 1)].add(1, mode="drop")
    low, ties_needed = jax.vmap(lambda h, r: tuple(x[0] for x in _find_bins(h, r[None])))(low_histogram[owner], rest)
    threshold = (high << _LOW_BITS) | low
    # need 0 selects nothing: a key no score reaches
    threshold = jnp.where(need > 0, threshold, jnp.iinfo(jnp.int32).max)
    ties = low_histogram[owner, low]
    partial_tie = (need > 0) & (ties_needed < ties)

    first = []
    for key in keys:
        below = jnp.sum(key[:, None] < threshold[None, :], axis=1, dtype=jnp.int32)
        first.append(below)
    excluded = lax.cond(
        jnp.any(partial_tie),
        lambda: _late_ties(keys, alive, threshold, ties_needed, partial_tie),
        lambda: tuple(jnp.zeros(key.shape, jnp.int32) for key in keys),
    )
    out = []
    for f, extra, ok in zip(first, excluded, alive, strict=True):
        index = f + extra
        out.append(index if ok is None else jnp.where(ok, index, count))
    return tuple(out)


def _late_ties(
    keys: tuple[jax.Array, ...],
    alive: tuple[jax.Array | None, ...],
    threshold: jax.Array,
    ties_needed: jax.Array,
    partial_tie: jax.Array,
) -> tuple[jax.Array, ...]:
    """For each weight, by how many k it is left out although its key equals their threshold."""

    def one(k: jax.Array, excluded: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        def count_out() -> tuple[jax.Array, ...]:
            before = jnp.int32(0)
            out = []
            for key, ok, sofar in zip(keys, alive, excluded, strict=True):
                tie = key == threshold[k]
                tie = tie if ok is None else tie & ok
                rank = before + jnp.cumsum(tie.astype(jnp.int32))  # 1, 2, ... among the ties
                out.append(sofar + (tie & (rank > ties_needed[k])).astype(jnp.int32))
                before = rank[-1]
            return tuple(out)

        return lax.cond(partial_tie[k], count_out, lambda: excluded)

    start = tuple(jnp.zeros(key.shape, jnp.int32) for key in keys)
    return lax.fori_loop(0, threshold.shape[0], one, start)


@partial(jax.jit, static_argnames=("base",))
def compute_levels(
    scores: tuple[jax.Array, ...], density_pct: jax.Array, counts: jax.Array, *, base: tuple[int, ...]
) -> tuple[jax.Array, ...]:
    """Levels of every weight for all densities at once.

    Args:
      scores: importance >= 0, one array a prunable leaf, in its shape.
      percents: int32 `[K]`, the distinct densities in use, ascending.
      counts: int32 `[K]`, weights each keeps in all (`ModelSize.count`), ascending, at least `sum(base)`.
      base: weights each leaf keeps in every sub-model (`ModelSize.base_counts`).

    Returns:
      int8 arrays in the leaves' shapes: the smallest density that includes the
      weight; 101 where none does.
    """
    keys = tuple(score_keys(score) for score in scores)
    in_base = tuple(
        _select((key,), (None,), jnp.asarray([n], jnp.int32))[0] == 0 for key, n in zip(keys, base, strict=True)
    )
    rest = _select(keys, tuple(~b for b in in_base), counts - sum(base))
    # index K (none) reads 101
    table = jnp.concatenate([density_pct.astype(jnp.int32), jnp.asarray([101], jnp.int32)]).astype(jnp.int8)
    return tuple(
        jnp.where(b, table[0], table[r]).reshape(score.shape) for b, r, score in zip(in_base, rest, scores, strict=True)
    )


@partial(jax.jit, static_argnames=("base",))
def _counted_levels(
    scores: tuple[jax.Array, ...], density_pct: jax.Array, counts: jax.Array, *, base: tuple[int, ...]
) -> tuple[tuple[jax.Array, ...], jax.Array, jax.Array]:
    """`compute_levels`, `[K, leaves]` how many weights each density holds, and whether all scores are finite.

    One call, since a method that prunes in every window waits for each.
    """
    finite = jnp.stack([jnp.isfinite(score).all() for score in scores]).all()
    levels = compute_levels(scores, density_pct, counts, base=base)
    return levels, count_levels(levels, density_pct), finite


def prune(
    scores: tuple[jax.Array, ...], density_pct: np.ndarray, size: ModelSize
) -> tuple[tuple[jax.Array, ...], np.ndarray]:
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
    # One shape for every generation: the densities in use and 100, padded with 100.
    used = sorted({int(p) for p in density_pct} | {100})
    padded = used + [100] * (len(density_pct) + 1 - len(used))
    counts = [size.count(p) for p in padded]
    percents = np.asarray(padded, np.int32)
    levels, held, finite = _counted_levels(scores, percents, np.asarray(counts, np.int32), base=size.base_counts())
    if not finite:
        raise FloatingPointError("an importance score is not finite")
    held = np.asarray(held)  # [K, leaves]
    if held.sum(axis=1).tolist() != counts:
        raise RuntimeError(f"levels hold {held.sum(axis=1).tolist()} weights, the clock charges {counts}")
    flop = np.asarray(size.layer_flop)
    whole = flop.sum() or 1.0
    share = {p: float(flop @ (held[k] / np.asarray(size.layers)) / whole) for k, p in enumerate(padded)}
    return levels, np.array([share[int(p)] for p in density_pct])

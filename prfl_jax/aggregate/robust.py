"""Robust aggregation: server models that a minority of malicious clients cannot spoil; models are stacked `[S, ...]`.

Each rule looks at the models of all slots that count, each counting once, and respects masks: a weight is decided by
the clients that hold it. A weight that fewer than 2f + 1 clients hold keeps its old value, because f malicious clients
among them could not be outvoted; such weights are counted. A value that is not finite is left out, and its client is
one of the f, so no client can stop the training by sending such values.

Median and trimmed mean: Yin et al. 2018, "Byzantine-Robust Distributed Learning", definitions 1 and 2. Krum and
multi-Krum: Blanchard et al. 2017, "Machine Learning with Adversaries".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from prfl_jax.aggregate.maskfedavg import UNROLL_LIMIT, mixed
from prfl_jax.aggregate.stacked import StackedUpdates


class Robust(NamedTuple):
    """The result of a robust rule.

    Attributes:
      params: the next server model.
      kept: int32, how many of its weights kept their old value for lack of holders.
      held: the other weights, boolean leaves in the shapes of `params`; () for those that a client that counts holds.
    """

    params: Any
    kept: jax.Array
    held: Any = ()


def median(stacked: StackedUpdates) -> Robust:
    """The median of each weight over its holders; of an even number the mean of the middle two."""

    def middle(ordered: list[jax.Array], count: jax.Array, not_finite: jax.Array) -> jax.Array:
        return 0.5 * (_entry(ordered, (count - 1) // 2) + _entry(ordered, count // 2))

    return _by_coordinate(stacked, middle)


def trimmed_mean(stacked: StackedUpdates) -> Robust:
    """The mean of each weight over its holders without the f largest and the f smallest values.

    Values that are not finite are left out first, and count among the f.
    """

    def trimmed(ordered: list[jax.Array], count: jax.Array, not_finite: jax.Array) -> jax.Array:
        f = jnp.maximum(stacked.byzantine - not_finite, 0)
        total = jnp.zeros_like(ordered[0])
        for k, values in enumerate(ordered):
            total += jnp.where((k >= f) & (k < count - f), values, 0.0)
        return total / jnp.maximum(count - 2 * f, 1)

    return _by_coordinate(stacked, trimmed)


def krum(stacked: StackedUpdates) -> Robust:
    """The model with the smallest sum of distances to its n - f - 2 nearest others, of n that count."""
    return _chosen(stacked, lambda n: jnp.minimum(n, 1))


def multi_krum(stacked: StackedUpdates) -> Robust:
    """The mean, over each weight's holders, of the n - f models with the smallest such distances."""
    return _chosen(stacked, lambda n: jnp.maximum(n - stacked.byzantine, 0))


def _by_coordinate(
    stacked: StackedUpdates, combine: Callable[[list[jax.Array], jax.Array, jax.Array], jax.Array]
) -> Robust:
    """Each weight's new value from the values of its holders.

    Args:
      combine: (finite values in ascending order, then infinity, `S` arrays `[n]`; how many are finite `[n]`; how many
        are not `[n]`) -> the new values `[n]`.
    """

    def leaf(models: jax.Array, there: jax.Array) -> tuple[jax.Array, jax.Array]:
        finite = there & jnp.isfinite(models)
        holders, count = (jnp.sum(who, axis=0, dtype=jnp.int32) for who in (there, finite))
        ordered = _sorted([jnp.where(t, m, jnp.inf) for t, m in zip(finite, models, strict=True)])
        return combine(ordered, count, holders - count), jnp.where(count > 0, holders, 0)

    return _each_leaf(stacked, leaf)


def _chosen(stacked: StackedUpdates, number: Callable[[jax.Array], jax.Array]) -> Robust:
    """The mean of the `number(n)` models with the lowest Krum scores, of n that count."""
    scores = krum_scores(stacked)
    n = jnp.sum(stacked.weights > 0, dtype=jnp.int32)
    rank = jnp.argsort(jnp.argsort(scores))  # stable: of equal ones the lower slot comes first
    chosen = jnp.isfinite(scores) & (rank < number(n)) & (n >= 2 * stacked.byzantine + 3)

    def leaf(models: jax.Array, there: jax.Array) -> tuple[jax.Array, jax.Array]:
        holders = jnp.sum(there, axis=0, dtype=jnp.int32)
        own = there & chosen[:, None]
        count = jnp.sum(own, axis=0, dtype=jnp.int32)
        mean = jnp.sum(jnp.where(own, models, 0.0), axis=0) / jnp.maximum(count, 1)
        return mean, jnp.where(count > 0, holders, 0)  # a weight that none of the chosen holds keeps its value too

    return _each_leaf(stacked, leaf)


def krum_scores(stacked: StackedUpdates) -> jax.Array:
    """`[S]` sums over the n - f - 2 nearest others of n; infinite for slots that do not count or are not finite.

    The squared distance of two models is averaged over the weights that both hold, so that a model of low density is
    not near because it has few weights to differ in. For full models the order is that of the paper's distances.
    """
    slots = stacked.weights.shape[0]

    def row(i: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Squared differences to every slot `[S]`, and over how many weights."""
        total, shared = jnp.zeros(slots), jnp.zeros(slots)
        for models, there in _leaves(stacked):
            both = there & there[i]
            total += jnp.sum(jnp.where(both, (models - models[i]) ** 2, 0.0), axis=1)
            shared += jnp.sum(both, axis=1, dtype=jnp.float32)
        return total, shared

    total, shared = lax.map(row, jnp.arange(slots))
    distance = total / jnp.maximum(shared, 1.0)
    # a model with one value that is not finite is at no finite distance to itself
    n = jnp.sum(stacked.weights > 0)
    counts = (stacked.weights > 0) & jnp.isfinite(jnp.diagonal(distance))
    others = counts[:, None] & counts[None, :] & ~jnp.eye(slots, dtype=bool)
    ordered = jnp.sort(jnp.where(others, distance, jnp.inf), axis=1)
    nearest = jnp.arange(slots) < n - stacked.byzantine - 2
    scores = jnp.sum(jnp.where(nearest, ordered, 0.0), axis=1)
    return jnp.where(counts, scores, jnp.inf)


def _leaves(stacked: StackedUpdates) -> list[tuple[jax.Array, jax.Array]]:
    """(models `[S, n]`, who holds what `[S, n]`) of each leaf."""
    slots = stacked.weights.shape[0]
    counts = (stacked.weights > 0)[:, None]
    return [
        (models.reshape(slots, -1), mask & counts)
        for models, mask in zip(jax.tree.leaves(stacked.models), stacked.masks(), strict=True)
    ]


def _each_leaf(stacked: StackedUpdates, leaf: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]) -> Robust:
    """`leaf(models [S, n], who holds what [S, n])` gives each weight's new value and how many hold it (0: none)."""
    out, held, kept = [], [], jnp.zeros((), jnp.int32)
    for old, (models, there) in zip(jax.tree.leaves(stacked.params), _leaves(stacked), strict=True):
        before = old.reshape(-1)
        new, holders = leaf(models, there)
        enough = holders >= 2 * stacked.byzantine + 1
        out.append(jnp.where(enough, mixed(before, new, stacked.server_lr), before).reshape(old.shape))
        held.append(enough.reshape(old.shape))
        kept += jnp.sum(~enough, dtype=jnp.int32)
    treedef = stacked.layout.treedef
    return Robust(jax.tree.unflatten(treedef, out), kept, jax.tree.unflatten(treedef, held))


def _entry(ordered: list[jax.Array], index: jax.Array) -> jax.Array:
    """The entry at each weight's own place."""
    out = jnp.zeros_like(ordered[0])
    for k, values in enumerate(ordered):
        out = jnp.where(index == k, values, out)
    return out


def _sorted(values: list[jax.Array]) -> list[jax.Array]:
    """The values of each weight in ascending order, `S` arrays `[n]`."""
    if len(values) > UNROLL_LIMIT:
        return list(jnp.sort(jnp.stack(values), axis=0))
    values = list(values)
    for low, high in comparisons(len(values)):
        a, b = values[low], values[high]
        values[low], values[high] = jnp.minimum(a, b), jnp.maximum(a, b)
    return values


def comparisons(count: int) -> list[tuple[int, int]]:
    """The pairs that Batcher's odd-even merge sort compares, in order (Knuth, volume 3, algorithm 5.2.2M)."""
    pairs = []
    top = 1 << max(0, (count - 1).bit_length() - 1)
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while d > 0:
            pairs += [(i, i + d) for i in range(count - d) if i & p == r]
            d, q, r = q - p, q >> 1, p
        p >>= 1
    return pairs

"""Pruning by magnitude, SNIP and iterative pruning, against loops in float64."""

import jax
import jax.numpy as jnp
import mask_cases
import numpy as np
import pytest
from mask_cases import SHAPES, some

from prfl_jax.submodel import shared_masks
from prfl_jax.submodel.shared_masks import iterative_due, iterative_rate

KINDS = {
    "spread": lambda rng, shape: rng.normal(size=shape) * 10.0 ** rng.integers(-5, 5, shape),
    "tied": lambda rng, shape: rng.integers(-2, 3, shape),
    "equal": lambda rng, shape: np.full(shape, -0.7),
}
remove_smallest, to_counts, snip_masks = map(
    jax.jit, (shared_masks.remove_smallest, shared_masks.to_counts, shared_masks.snip_masks)
)


def drawn(kind, rng):
    return mask_cases.drawn(rng, KINDS[kind])


def smallest_first(values, positions):
    """Positions by ascending magnitude in float64; of equal ones the last comes first."""
    flat = np.abs(np.asarray(values, np.float64)).ravel()
    return sorted(positions, key=lambda k: (flat[k], -k))


def without_smallest(weights, masks, share):
    """One weight after the other, until floor(share x held) are gone or one is left."""
    out = []
    for w, mask in zip(weights, masks, strict=True):
        left = np.array(mask).ravel()
        held = np.flatnonzero(left)
        for gone, k in enumerate(smallest_first(w, held)):
            if gone + 1 > np.float32(share) * np.float32(len(held)) or gone + 1 == len(held):
                break
            left[k] = False
        out.append(left.reshape(w.shape))
    return out


def same(found, want):
    for one, other in zip(found, want, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_the_smallest_held_weights_of_each_layer_go(kind):
    rng = np.random.default_rng(3)
    for density in (1.0, 0.5, 0.1, 0.0):
        weights, masks = drawn(kind, rng), some(rng, density)
        for share in (0.0, 0.3, 0.5, 0.999, 1.0):
            same(remove_smallest(weights, masks, share), without_smallest(weights, masks, share))


def test_counts_of_removed_weights_are_exact():
    """24, 55 and 1 weights: floor(0.3 n) go; equal ones from the end; the last weight stays."""
    full = tuple(jnp.ones(shape, bool) for shape in SHAPES)
    equal = drawn("equal", None)
    kept = remove_smallest(equal, full, 0.3)
    assert [int(mask.sum()) for mask in kept] == [24 - 7, 55 - 16, 1]
    assert np.flatnonzero(kept[0]).tolist() == list(range(17))
    assert [int(mask.sum()) for mask in remove_smallest(equal, full, 1.0)] == [1, 1, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_to_counts_keeps_the_largest_of_each_layer(kind):
    weights = drawn(kind, np.random.default_rng(4))
    for counts in ((24, 55, 1), (1, 1, 1), (7, 30, 0)):
        want = []
        for w, count in zip(weights, counts, strict=True):
            mask = np.zeros(w.size, bool)
            mask[smallest_first(w, range(w.size))[w.size - count :]] = True
            want.append(mask.reshape(w.shape))
        same(to_counts(weights, np.array(counts, np.int32)), want)


@pytest.mark.parametrize("kind", KINDS)
def test_snip_takes_the_best_of_all_layers_together(kind):
    """The best of each layer first, then one after the other; the learning rate changes nothing."""
    rng, lr = np.random.default_rng(5), 0.25
    weights, updates = drawn(kind, rng), tuple(u * s for u, s in zip(drawn(kind, rng), (1, 4, 0), strict=True))
    scores = [
        np.abs(np.asarray(w, float) * np.asarray(u, float) / lr).ravel() for w, u in zip(weights, updates, strict=True)
    ]
    order = sorted((-s, leaf, k) for leaf, score in enumerate(scores) for k, s in enumerate(score))
    firsts = [min(one for one in order if one[1] == leaf) for leaf in range(len(SHAPES))]
    ranked = firsts + [one for one in order if one not in firsts]
    for count in (3, 4, 20, 79, 80):
        want = [np.zeros(shape, bool) for shape in SHAPES]
        for _, leaf, k in ranked[:count]:
            want[leaf].flat[k] = True
        same(snip_masks(weights, updates, count), want)


def test_iterative_pruning_reaches_its_density_in_the_first_half():
    """PruneFL's public code: 10,001 rounds, a pruning in rounds 250, 500, ..., 5,000."""
    due = [r for r in range(10_001) if iterative_due(r, 10_001)]
    assert due == list(range(250, 5001, 250)) and len(due) == 20
    assert [r for r in range(12) if iterative_due(r, 12, times=3)] == [2, 4, 6]
    assert [r for r in range(6) if iterative_due(r, 6, times=3)] == [1, 2, 3]
    for density in (1.0, 0.086, 0.037):
        assert (1.0 - iterative_rate(density)) ** 20 == pytest.approx(density, rel=1e-12)
    with pytest.raises(ValueError, match="39 rounds are too few for 20 prunings"):
        iterative_due(1, 39)

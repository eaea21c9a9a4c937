"""FedDST's and FedTiny's exchange of weights against loops in float64; layer counts by the Erdos-Renyi kernel rule."""

import jax
import jax.numpy as jnp
import mask_cases
import numpy as np
import pytest
from mask_cases import SHAPES, some

from prfl_jax.submodel import sparse_growth
from prfl_jax.submodel.sparse_growth import cosine_share, erk_counts, tiny_counts

SIZES = np.array([24, 55, 1])
KINDS = {
    "spread": lambda rng, shape: rng.normal(size=shape),
    "tied": lambda rng, shape: rng.integers(-2, 3, shape),
}
dst_readjust, tiny_adjust = jax.jit(sparse_growth.dst_readjust), jax.jit(sparse_growth.tiny_adjust)


def drawn(kind, rng):
    return mask_cases.drawn(rng, KINDS[kind])


def ranked(values, positions):
    """Positions by descending magnitude, the first of equal ones first."""
    flat = np.abs(np.asarray(values, np.float64)).ravel()
    return sorted(positions, key=lambda k: (-flat[k], k))


def exchanged(w, mask, g, gone, back):
    """One layer without its `gone` smallest weights, with as many of the largest gradients; `back`: may they return?"""
    out, old = np.array(mask).ravel(), np.array(mask).ravel()
    held = np.flatnonzero(old)
    out[ranked(w, held)[len(held) - gone :]] = False
    free = np.flatnonzero(~out) if back else np.flatnonzero(~old)
    out[ranked(g, free)[:gone]] = True
    return out.reshape(w.shape)


@pytest.mark.parametrize("kind", KINDS)
def test_a_feddst_client_keeps_each_layers_count(kind):
    rng = np.random.default_rng(3)
    for density in (1.0, 0.5, 0.1, 0.0):
        weights, masks, gradients = drawn(kind, rng), some(rng, density), drawn(kind, rng)
        for share in (0.0, 0.25, 0.5, 1.0):
            found = dst_readjust(weights, masks, gradients, share)
            for leaf, (w, mask, g) in enumerate(zip(weights, masks, gradients, strict=True)):
                held = int(mask.sum())
                gone = min(int(share * held), max(held - 1, 0))
                np.testing.assert_array_equal(found[leaf], exchanged(w, mask, g, gone, back=True))
                assert int(found[leaf].sum()) == held


@pytest.mark.parametrize("kind", KINDS)
def test_fedtiny_exchanges_as_many_in_each_layer(kind):
    """As many as asked for, are not held, and leave one of those that are held."""
    rng = np.random.default_rng(4)
    for density in (1.0, 0.7, 0.1, 0.0):
        weights, masks, gradients = drawn(kind, rng), some(rng, density), drawn(kind, rng)
        for counts in ((0, 0, 0), (2, 0, 1), (3, 9, 0), (99, 99, 99)):
            found = tiny_adjust(weights, masks, gradients, np.array(counts, np.int32))
            for leaf, (w, mask, g) in enumerate(zip(weights, masks, gradients, strict=True)):
                held = int(mask.sum())
                gone = max(0, min(counts[leaf], held - 1, mask.size - held))
                np.testing.assert_array_equal(found[leaf], exchanged(w, mask, g, gone, back=False))


def test_fedtiny_takes_nothing_back_and_feddst_does():
    """A weight with the smallest magnitude and the largest gradient."""
    weights = tuple(
        jnp.asarray(np.arange(n).reshape(shape) + 1, jnp.float32) for n, shape in zip(SIZES, SHAPES, strict=True)
    )
    gradients, half = tuple(1.0 / w for w in weights), tuple(w % 2 == 1 for w in weights)
    np.testing.assert_array_equal(np.flatnonzero(half[0])[:3], [0, 2, 4])
    readjusted = dst_readjust(weights, half, gradients, 2 / 12)  # 2 of 12 and 4 of 28
    np.testing.assert_array_equal(np.flatnonzero(readjusted[0])[:4], [0, 1, 4, 6])
    adjusted = tiny_adjust(weights, half, gradients, np.array([2, 4, 0], np.int32))
    np.testing.assert_array_equal(np.flatnonzero(adjusted[0])[:4], [1, 3, 4, 6])


def test_the_share_falls_as_a_cosine():
    assert [cosine_share(0.5, r, 100) for r in (0, 50, 100, 150)] == pytest.approx([0.5, 0.25, 0.0, 0.0], abs=1e-15)
    held = np.array([10, 105, 1])
    assert tiny_counts(0, 100, held).tolist() == [2, 21, 0]
    assert tiny_counts(50, 100, held).tolist() == [1, 10, 0]
    assert tiny_counts(50, 100, held, first=0.3).tolist() == [1, 15, 0]
    assert tiny_counts(100, 100, held).tolist() == tiny_counts(400, 100, held).tolist() == [0, 0, 0]


def test_layer_counts_worked_out_by_hand():
    """Sums of the sizes 18 and 84: 156.8 weights are shared out as 27.7 and 129.1, rounded up."""
    assert erk_counts([(3, 3, 4, 8), (64, 20)], 0.1).tolist() == [28, 130]


def test_layers_that_would_be_above_one_are_full():
    """The first would get 9 of its 4 weights; 501.2 are left for sums of 20 and 200."""
    assert erk_counts([(2, 2), (10, 10), (100, 100)], 0.05).tolist() == [4, 46, 456]
    assert erk_counts([(3, 3, 4, 8), (64, 20), (1,)], 1.0).tolist() == [288, 1280, 1]
    for density in (0.0, 1.01):
        with pytest.raises(ValueError, match="is not in"):
            erk_counts([(2, 2)], density)


@pytest.mark.parametrize("density", [0.01, 0.1, 0.37, 0.8])
def test_layer_counts_have_the_whole_density(density):
    """Conv2's kernels: at most one weight a layer too many; no layer empty; ratios equal but for the full layers."""
    shapes = [(5, 5, 1, 32), (5, 5, 32, 64), (3136, 2048), (2048, 62)]
    sizes = np.array([np.prod(shape) for shape in shapes])
    counts = erk_counts(shapes, density)
    assert 0 <= counts.sum() - density * sizes.sum() <= len(shapes) and counts.min() >= 1 and (counts <= sizes).all()
    factors = np.array([count / sum(shape) for count, shape in zip(counts, shapes, strict=True)])
    rest = counts < sizes
    assert np.ptp(factors[rest]) < 0.05 * factors[rest].max()
    assert (factors[~rest] <= factors[rest].max()).all()

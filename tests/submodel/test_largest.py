"""The largest scores of all leaves or of each leaf, against a sort in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from prfl_jax.submodel.largest import largest, largest_by_layer

SHAPES = ((9, 4), (3, 2, 5), (1,), (40,))
SIZES = tuple(int(np.prod(shape)) for shape in SHAPES)
TOTAL, CUTS = sum(SIZES), np.cumsum(SIZES)[:-1]
SCORES = {
    "spread": lambda rng, n: rng.lognormal(0, 8, n),
    "near": lambda rng, n: 1 + rng.random(n) * 1e-5,
    "tied": lambda rng, n: rng.integers(0, 4, n),
    "zeros": lambda rng, n: rng.random(n) * (rng.random(n) < 0.2),
    "huge": lambda rng, n: np.where(rng.random(n) < 0.2, np.inf, rng.random(n) * 1e38),
}


def leaves(flat):
    return tuple(jnp.asarray(part.reshape(s)) for part, s in zip(np.split(flat, CUTS), SHAPES, strict=True))


def flat(found):
    """Chosen positions of every row `[K, n]`."""
    rows = [np.asarray(leaf).reshape(leaf.shape[0], -1) for leaf in found]
    return [np.flatnonzero(row).tolist() for row in np.concatenate(rows, axis=1)]


def by_sorting(scores, positions, count):
    """The `count` largest of these positions, the first of equal ones."""
    order = positions[np.lexsort((positions, -scores[positions].astype(np.float64)))]
    return sorted(order[:count].tolist())


def test_the_largest_values_are_those_of_a_sort():
    """Exactly as many, ties by position: five kinds of scores, nine counts each, for several clients at once."""
    rng, everywhere = np.random.default_rng(1), np.arange(TOTAL)
    counts = np.array([0, 1, 2, 20, 50, 51, 90, TOTAL - 1, TOTAL], np.int32)
    many = jax.jit(jax.vmap(largest, in_axes=(None, 0)))
    some = jax.jit(jax.vmap(largest, in_axes=(None, 0, None)))
    for draw in SCORES.values():
        scores = draw(rng, TOTAL).astype(np.float32)
        assert flat(many(leaves(scores), counts)) == [by_sorting(scores, everywhere, n) for n in counts]
        free = rng.random(TOTAL) < 0.6
        fewer = np.minimum(counts, free.sum())
        want = [by_sorting(scores, np.flatnonzero(free), n) for n in fewer]
        assert flat(some(leaves(scores), fewer, leaves(free))) == want


def test_the_largest_values_of_each_leaf():
    """Counts of its own for each leaf: none, some, all, and more than can be chosen."""
    rng = np.random.default_rng(2)
    own = np.array([[0, 30, 1, 7], [36, 0, 0, 40], [17, 29, 1, 0], [35, 1, 0, 39], [50, 50, 50, 50]], np.int32)
    many = jax.jit(jax.vmap(largest_by_layer, in_axes=(None, 0, None)))
    for draw in SCORES.values():
        scores = draw(rng, TOTAL).astype(np.float32)
        for share in (1.0, 0.5, 0.0):
            free = rng.random(TOTAL) < share
            positions = [part[free[part]] for part in np.split(np.arange(TOTAL), CUTS)]
            want = [sum((by_sorting(scores, *one) for one in zip(positions, row, strict=True)), []) for row in own]
            assert flat(many(leaves(scores), own, leaves(free))) == want

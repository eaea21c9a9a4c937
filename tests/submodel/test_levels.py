"""Prune_model (Algorithm 1, line 23): levels from scores, against a sort in NumPy."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prfl_jax.submodel import levels as levels_room
from prfl_jax.submodel.levels import compute_levels, counted_levels_on_host
from prfl_jax.submodel.size import ModelSize
from prfl_jax.submodel.split import count_levels
from prfl_jax.submodel.thresholds import score_keys

SHAPES = ((9, 4), (3, 2, 5, 7), (1, 2), (40, 6))
WEIGHTS = tuple(int(np.prod(shape)) for shape in SHAPES)
DENSITIES = 6
MIN_PERCENT = 10


def sorted_levels(scores, density_pct, counts, base):
    """The same by sorting, largest score first, ties by position (leaf after leaf)."""
    leaf = np.concatenate([np.full(s.size, k) for k, s in enumerate(scores)])
    flat = np.concatenate([s.ravel() for s in scores]).astype(np.float64)
    position = np.arange(flat.size)
    level = np.full(flat.size, 101)
    in_base = np.zeros(flat.size, bool)
    for k, kept in enumerate(base):
        own = position[leaf == k]
        in_base[own[np.lexsort((own, -flat[own]))[:kept]]] = True
    rest = position[~in_base]
    rest = rest[np.lexsort((rest, -flat[rest]))]
    for percent, count in sorted(zip(density_pct, counts, strict=True), reverse=True):
        level[rest[: count - sum(base)]] = percent
    level[in_base] = density_pct[0]
    cuts = np.cumsum([s.size for s in scores])[:-1]
    return [part.reshape(s.shape) for part, s in zip(np.split(level, cuts), scores, strict=True)]


def levels_of(scores, density_pct):
    """(levels, counts) as the experiment asks for them: densities padded with the last one."""
    size = ModelSize(layers=WEIGHTS, fixed=0, min_percent=MIN_PERCENT)
    padded = list(density_pct) + [density_pct[-1]] * (DENSITIES - len(density_pct))
    counts = [size.count(percent) for percent in padded]
    arguments = np.array(padded, np.int32), np.array(counts, np.int32)
    levels = compute_levels(tuple(scores), *arguments, base=size.base_counts())
    for many in (-1.0, 2.0):  # ties settled on the device, on the host
        with mock.patch.object(levels_room, "MANY_TIES", many):
            on_host, held, finite = counted_levels_on_host(
                tuple(map(jnp.asarray, scores)), *arguments, base=size.base_counts()
            )
        for one, other in zip(levels, on_host, strict=True):
            np.testing.assert_array_equal(one, other)
        assert held.sum(1).tolist() == counts and finite == all(np.isfinite(score).all() for score in scores)
    return [np.asarray(level) for level in levels], padded, counts, size.base_counts()


def random_scores(kind, seed):
    rng = np.random.default_rng(seed)
    draw = {
        "spread": lambda n: rng.lognormal(0, 8, n),
        "near": lambda n: 1 + rng.random(n) * 1e-5,  # one bin of the high bits
        "tied": lambda n: rng.integers(0, 4, n),
        "zeros": lambda n: rng.random(n) * (rng.random(n) < 0.1),
        "all zero": lambda n: np.zeros(n),
        "constant": lambda n: np.full(n, 0.3),
        "huge": lambda n: np.where(rng.random(n) < 0.2, np.inf, rng.random(n) * 1e38),
    }[kind]
    # Each layer on a scale of its own, so that a global choice alone would empty some.
    scale = 10.0 ** rng.integers(-6, 1, len(SHAPES)) if kind in ("spread", "tied", "zeros") else np.ones(len(SHAPES))
    with np.errstate(over="ignore"):
        return [(draw(n) * c).astype(np.float32).reshape(s) for n, s, c in zip(WEIGHTS, SHAPES, scale, strict=True)]


KINDS = ("spread", "near", "tied", "zeros", "all zero", "constant", "huge")


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(KINDS),
    st.lists(st.integers(1, 100), min_size=1, max_size=DENSITIES, unique=True).map(sorted),
    st.integers(0, 2**32 - 1),
)
def test_levels_equal_those_by_sorting(kind, density_pct, seed):
    density_pct = sorted({max(percent, MIN_PERCENT) for percent in density_pct})
    scores = random_scores(kind, seed)
    levels, padded, counts, base = levels_of(scores, density_pct)
    for got, want in zip(levels, sorted_levels(scores, padded, counts, base), strict=True):
        assert got.dtype == np.int8
        np.testing.assert_array_equal(got, want)
    held = np.asarray(count_levels(tuple(levels), np.array(padded, np.int32)))
    assert held.sum(1).tolist() == counts  # exactly what the clock charges
    assert (held >= np.array(base)).all()  # no layer empties
    assert (np.diff(held, axis=0) >= 0).all()  # nested


@pytest.mark.parametrize("kind", KINDS)
def test_density_1_takes_everything(kind):
    levels, *_ = levels_of(random_scores(kind, 0), [10, 100])
    assert all((level <= 100).all() for level in levels)


def test_ties_are_broken_by_position():
    scores = [np.full(shape, 2.0, np.float32) for shape in SHAPES]
    levels, _, counts, base = levels_of(scores, [20, 50])
    flat = np.concatenate([level.ravel() for level in levels])
    starts = np.cumsum([0, *WEIGHTS[:-1]])
    in_base = np.zeros(flat.size, bool)
    for start, kept in zip(starts, base, strict=True):
        in_base[start : start + kept] = True
    rest = flat[~in_base]
    assert (flat[in_base] == 20).all()
    assert (rest[: counts[0] - sum(base)] == 20).all()
    assert (rest[counts[0] - sum(base) : counts[1] - sum(base)] == 50).all()
    assert (rest[counts[1] - sum(base) :] == 101).all()


def test_a_layer_without_any_importance_keeps_its_minimum_share():
    scores = [np.ones(shape, np.float32) for shape in SHAPES]
    scores[3][:] = 0
    levels, _, _, base = levels_of(scores, [20, 60])
    assert base[3] == 24
    assert (levels[3] == 20).sum() == 24 and (levels[3].ravel()[:24] == 20).all()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0x00800000, 0x7F800000), min_size=12, max_size=12))
def test_keys_have_the_order_of_the_scores(patterns):
    values = np.array(patterns, np.int32).view(np.float32)  # any positive number that is normal, or infinity
    values = np.concatenate([values, np.array([-0.0, 0.0, np.inf], np.float32)])
    keys = np.asarray(jax.jit(score_keys)(values)).astype(np.int64)
    assert keys.min() >= 0
    for compare in (np.less, np.equal):
        np.testing.assert_array_equal(compare.outer(keys, keys), compare.outer(values, values))


def test_negative_zero_and_tiny_scores_keep_the_counts_exact():
    rng = np.random.default_rng(0)
    scores = []
    for shape in SHAPES:  # as zero as a score can be, and below what is normal in float32
        values = np.where(rng.random(shape) < 0.5, np.float32(-0.0), np.float32(1e-42) * rng.integers(1, 9, shape))
        scores.append(jnp.asarray(values, jnp.float32))
    levels, padded, counts, _ = levels_of(scores, [10, 30, 70])
    assert np.asarray(count_levels(tuple(levels), np.array(padded, np.int32))).sum(1).tolist() == counts

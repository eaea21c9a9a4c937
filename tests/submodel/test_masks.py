"""Packed masks, the delta split (Algorithm 3), importance."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from prfl_jax.submodel import IMPORTANCES
from prfl_jax.submodel.importance import add_arrival, init_importance, mean_squares
from prfl_jax.submodel.layout import Layout, bits_length
from prfl_jax.submodel.masks import apply_masks, full_levels, level_masks, pack, unpack, unpack_masks
from prfl_jax.submodel.size import ModelSize
from prfl_jax.submodel.split import count_levels, merge_increments, split_model


def leaf_of(shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


SHAPES = {
    "a": {"bias": leaf_of((3,)), "kernel": leaf_of((7, 3))},
    "b": {"bias": leaf_of((5,)), "kernel": leaf_of((2, 3, 2, 5))},
}
LAYOUT = Layout.of(SHAPES)
DENSITIES = 5


@functools.partial(jax.jit, static_argnums=1)
def there_and_back(mask, n):
    bits = pack(mask)
    return bits, unpack(bits, n)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_unpack_is_the_inverse_of_pack(n, seed):
    mask = np.random.default_rng(seed).random(n) < 0.4
    bits, back = there_and_back(mask, n)
    assert bits.dtype == jnp.uint8 and bits.shape == (bits_length(n),)
    np.testing.assert_array_equal(back, mask)
    assert sum(int(byte).bit_count() for byte in np.asarray(bits)) == mask.sum()  # nothing in the padding


@pytest.mark.parametrize("n", [1, 7, 8, 9, 16, 17, 64])
def test_full_and_empty_masks_at_the_edges_of_bytes(n):
    for mask in (np.ones(n, bool), np.zeros(n, bool)):
        np.testing.assert_array_equal(there_and_back(mask, n)[1], mask)
    place = np.zeros(n, bool)
    for i in range(n):  # every single weight
        place[:] = False
        place[i] = True
        np.testing.assert_array_equal(there_and_back(place, n)[1], place)


def test_pack_has_the_documented_order():
    n, stride = 21, 3
    mask = np.random.default_rng(0).random(n) < 0.5
    bits = np.asarray(pack(jnp.asarray(mask)))
    for k in range(8):
        for j in range(stride):
            weight = k * stride + j
            assert (bits[j] >> k & 1) == (weight < n and mask[weight])


def random_params(rng):
    """Weights of all sizes, some of them 0 or -0."""

    def draw(leaf):
        size = 10.0 ** rng.integers(-30, 5, leaf.shape) * (rng.random(leaf.shape) < 0.8)
        return (rng.normal(size=leaf.shape) * size).astype(np.float32)

    return jax.tree.map(draw, SHAPES)


def random_levels(rng, density_pct):
    """Levels as pruning leaves them: one of the densities, or 101."""
    return tuple(rng.choice([*density_pct, 101], LAYOUT.shapes[i]).astype(np.int8) for i in LAYOUT.prunable)


def test_masks_of_levels():
    rng = np.random.default_rng(0)
    params, levels = random_params(rng), random_levels(rng, [5, 20, 100])
    for percent in (5, 20, 99, 100):
        masks = level_masks(levels, jnp.int32(percent))
        got = apply_masks(LAYOUT, params, masks)
        for part, level in (("a", levels[0]), ("b", levels[1])):
            np.testing.assert_array_equal(got[part]["kernel"], np.where(level <= percent, params[part]["kernel"], 0))
            np.testing.assert_array_equal(got[part]["bias"], params[part]["bias"])
        packed = tuple(pack(mask.reshape(-1)) for mask in masks)
        tiny.same(unpack_masks(LAYOUT, packed), masks)
    # before the first pruning every sub-model is the whole model
    tiny.same(apply_masks(LAYOUT, params, level_masks(full_levels(LAYOUT), jnp.int32(1))), params)


def test_a_mask_cuts_off_what_is_not_finite_too():
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, np.inf, np.float32), SHAPES)
    none = tuple(np.zeros(LAYOUT.shapes[i], bool) for i in LAYOUT.prunable)
    cut = apply_masks(LAYOUT, params, none)
    assert not np.asarray(cut["a"]["kernel"]).any() and not np.asarray(cut["b"]["kernel"]).any()


# Algorithm 3.

percent_lists = st.lists(st.integers(1, 100), min_size=1, max_size=DENSITIES, unique=True).map(sorted)


@settings(deadline=None, max_examples=30)
@given(percent_lists, st.integers(0, 2**32 - 1))
def test_merging_a_prefix_of_the_split_gives_the_sub_model(density_pct, seed):
    rng = np.random.default_rng(seed)
    params, levels = random_params(rng), random_levels(rng, density_pct)
    padded = np.array(density_pct + [density_pct[-1]] * (DENSITIES - len(density_pct)), np.int32)
    increments = split_model(params, levels, padded, layout=LAYOUT)
    counts = np.asarray(count_levels(levels, padded))
    for k, percent in enumerate(density_pct):
        merged = merge_increments(increments, np.int32(k))
        for part, level in (("a", levels[0]), ("b", levels[1])):
            want = np.where(level <= percent, params[part]["kernel"], np.float32(0))
            tiny.same(merged[part], {"bias": params[part]["bias"], "kernel": want})
        assert counts[k].tolist() == [int((level <= percent).sum()) for level in levels]
    for i, stack in enumerate(jax.tree.leaves(increments)):
        stack = np.asarray(stack)
        assert ((stack != 0).sum(0) <= 1).all()  # disjoint
        if i not in LAYOUT.prunable:
            assert not stack[1:].any()  # what is never pruned travels in the first increment
    # Eq. 12: an increment is the difference of two sub-models that follow one another
    for k in range(1, len(density_pct)):
        larger, smaller = (merge_increments(increments, np.int32(j)) for j in (k, k - 1))
        tiny.same(jax.tree.map(lambda stack, k=k: stack[k], increments), jax.tree.map(np.subtract, larger, smaller))


@settings(deadline=None, max_examples=30)
@given(percent_lists, st.integers(0, 2**32 - 1))
def test_what_is_sent_is_what_the_clock_charges(density_pct, seed):
    """Levels with `ModelSize`'s counts: the delta split sends each value of the largest sub-model once."""
    size = ModelSize(layers=LAYOUT.sizes(), fixed=8, bytes_per_value=4.0, min_percent=density_pct[0])
    order = np.random.default_rng(seed).permutation(size.prunable)
    flat = np.full(size.prunable, 101, np.int8)
    for percent in reversed(density_pct):
        flat[order[: size.count(percent)]] = percent
    cut = size.layers[0]
    levels = (flat[:cut].reshape(LAYOUT.shapes[1]), flat[cut:].reshape(LAYOUT.shapes[3]))
    padded = np.array(density_pct + [density_pct[-1]] * (DENSITIES - len(density_pct)), np.int32)
    held = np.asarray(count_levels(levels, padded)).sum(1)
    assert held[: len(density_pct)].tolist() == [size.count(percent) for percent in density_pct]
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), SHAPES)
    increments = split_model(ones, levels, padded, layout=LAYOUT)
    values = np.cumsum(sum(np.asarray(x).reshape(DENSITIES, -1).sum(1) for x in jax.tree.leaves(increments)))
    for k, percent in enumerate(density_pct):
        assert 4 * values[k] == size.value_bytes(percent)


# Importance.


@pytest.mark.parametrize("kind", ["server_sq_grad", "client_sq_grad", "product"])
def test_importance_is_the_mean_over_arrivals_with_the_weight(kind):
    rng = np.random.default_rng(4)
    shapes = [LAYOUT.shapes[i] for i in LAYOUT.prunable]
    importance = init_importance(LAYOUT, IMPORTANCES.find(kind))
    total, held = [np.zeros(s) for s in shapes], [np.zeros(s, int) for s in shapes]
    for _ in range(5):
        masks = tuple(rng.random(s) < 0.5 for s in shapes)
        squares = tuple((rng.normal(size=s) ** 2 * m).astype(np.float32) for s, m in zip(shapes, masks, strict=True))
        importance = add_arrival(importance, squares, masks)
        for k in range(len(shapes)):
            total[k] += squares[k]
            held[k] += masks[k]
    assert any((h == 0).any() for h in held)  # some weights nobody held
    weights = tuple(rng.normal(size=s).astype(np.float32) for s in shapes)
    scores = IMPORTANCES.find(kind).scores(weights, mean_squares(importance))
    for k in range(len(shapes)):
        np.testing.assert_array_equal(importance.held[k], held[k])
        want = np.divide(total[k], held[k], out=np.zeros_like(total[k]), where=held[k] > 0)
        want = want * np.abs(weights[k]) if kind == "product" else want
        np.testing.assert_allclose(scores[k], want, rtol=1e-6)
        assert not np.asarray(scores[k])[held[k] == 0].any()


@pytest.mark.parametrize("kind", [IMPORTANCES.find("weight"), None])
def test_nothing_is_accumulated_where_nothing_is_needed(kind):
    assert jax.tree.leaves(init_importance(LAYOUT, kind)) == []


def test_importance_by_magnitude():
    weights = (np.array([[-2.0, 0.0, 1.5]], np.float32),)
    (scores,) = IMPORTANCES.find("weight").scores(weights, ())
    np.testing.assert_array_equal(scores, [[2.0, 0.0, 1.5]])

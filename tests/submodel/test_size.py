"""Sizes of sub-models: counts, bytes, masks, layouts."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from prfl_jax.submodel.layout import Layout, bits_length, empty_bits
from prfl_jax.submodel.size import ModelSize, to_percent

sizes = st.builds(
    ModelSize,
    layers=st.lists(st.integers(1, 5000), min_size=1, max_size=5).map(tuple),
    fixed=st.integers(0, 500),
    bytes_per_value=st.sampled_from([4.0, 4.013, 1.5]),
    min_percent=st.integers(1, 100),
)


@settings(deadline=None, max_examples=100)
@given(sizes)
def test_counts_and_bytes_grow_with_density(size):
    counts = [size.count(percent) for percent in range(1, 101)]
    assert counts == sorted(counts)
    assert counts[-1] == size.prunable == sum(size.layers)
    base = size.base_counts()
    for kept, layer in zip(base, size.layers, strict=True):
        assert kept == max(1, math.floor(Fraction(layer * size.min_percent, 100)))
    for percent, count in enumerate(counts, start=1):
        half_up = math.floor(Fraction(size.prunable * percent, 100) + Fraction(1, 2))
        assert count == max(half_up, sum(base))
        assert sum(base) <= count <= size.prunable
        assert abs(size.value_bytes(percent) - (count + size.fixed) * size.bytes_per_value) <= 0.5
    assert size.total == size.prunable + size.fixed
    values = [size.value_bytes(percent) for percent in range(1, 101)]
    assert values == sorted(values)


@settings(deadline=None, max_examples=50)
@given(sizes)
def test_a_mask_costs_the_cheaper_of_a_bitmap_and_an_index_list(size):
    bitmap = -(-size.prunable // 8)
    for percent in range(1, 100):
        assert size.mask_bytes(percent) == min(bitmap, 4 * size.count(percent))
    assert size.mask_bytes(100) == 0


def test_both_ways_to_describe_a_mask_are_used():
    size = ModelSize(layers=(80_000,), fixed=0)
    assert size.mask_bytes(1) == 4 * 800 < 10_000
    assert size.mask_bytes(50) == 10_000


@pytest.mark.parametrize("percent", [0, -3, 101])
def test_a_percent_outside_is_refused(percent):
    with pytest.raises(ValueError, match=str(percent)):
        ModelSize(layers=(10,), fixed=0).count(percent)


def test_densities_are_snapped_to_whole_percents_halves_up():
    assert [to_percent(d) for d in (0.001, 0.0049, 0.014, 0.125, 0.994, 0.996, 1.0)] == [1, 1, 1, 13, 99, 100, 100]
    for bad in (0.0, -0.1, 1.01, math.nan):
        with pytest.raises(ValueError):
            to_percent(bad)


def params():
    return {
        "a": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3)},
        "b": {"kernel": jnp.arange(24.0).reshape(2, 2, 2, 3), "scale": jnp.float32(2.0)},
    }


def test_layout_finds_what_can_be_pruned():
    layout = Layout.of(params())
    assert layout.paths == ("a/bias", "a/kernel", "b/kernel", "b/scale")
    assert [layout.paths[i] for i in layout.prunable] == ["a/kernel", "b/kernel"]
    assert layout.sizes() == (6, 24)
    assert [b.shape for b in empty_bits(layout, 3)] == [(3, 1), (3, 3)]
    assert Layout.of(params(), prune=False).prunable == ()
    assert Layout.of(jax.eval_shape(params)) == layout and hash(layout) == hash(Layout.of(params()))


def test_layout_selects_one_model_or_a_stack_of_them():
    layout = Layout.of(params())
    stack = jax.tree.map(lambda w: jnp.stack([w, -w]), params())
    for leaf, stacked in zip(layout.select(params()), layout.select(stack), strict=True):
        assert leaf.ndim == 1 and stacked.shape == (2, leaf.size)
        np.testing.assert_array_equal(stacked, np.stack([leaf, -leaf]))


def test_map_pruned_leaves_the_others_alone():
    layout = Layout.of(params())
    mapped = layout.map_pruned(params(), (10.0, 20.0), lambda leaf, item: leaf + item)
    want = params()
    want["a"]["kernel"], want["b"]["kernel"] = want["a"]["kernel"] + 10, want["b"]["kernel"] + 20
    tiny.same(mapped, want)


@given(st.integers(1, 10_000))
def test_bits_length(n):
    assert bits_length(n) == math.ceil(n / 8)

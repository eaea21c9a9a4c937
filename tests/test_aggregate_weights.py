"""Aggregation weights (Eq. 7) and staleness."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from prfl_jax.aggregate import Slot, aggregation_weights, staleness_weight
from prfl_jax.aggregate.weights import client_weights


def cfg(name="buffered_maskfedavg", staleness="polynomial", a=0.6, b=4.0):
    return ConfigDict(dict(name=name, staleness=staleness, staleness_a=a, staleness_b=b))


def test_constant():
    np.testing.assert_array_equal(staleness_weight(np.array([0, 1, 50]), "constant", 0.6, 4.0), [1, 1, 1])


def test_polynomial():
    got = staleness_weight(np.arange(6), "polynomial", 0.6, 4.0)
    np.testing.assert_allclose(got, [math.pow(tau + 1, -0.6) for tau in range(6)], rtol=1e-15)
    np.testing.assert_array_equal(staleness_weight(np.arange(6), "polynomial", 0.0, 4.0), np.ones(6))


def test_hinge_with_the_one_that_copies_lose():
    got = staleness_weight(np.arange(8), "hinge", 10.0, 4.0)
    np.testing.assert_allclose(got, [1, 1, 1, 1, 1, 1 / 11, 1 / 21, 1 / 31], rtol=1e-15)


@pytest.mark.parametrize("b", [1e9, 1e300, math.inf])
def test_hinge_with_a_huge_b_is_constant(b):
    np.testing.assert_array_equal(staleness_weight(np.arange(10_000), "hinge", 10.0, b), np.ones(10_000))


def test_staleness_refuses():
    with pytest.raises(ValueError, match="negative"):
        staleness_weight(np.array([0, -1]), "constant", 0.6, 4.0)
    with pytest.raises(ValueError, match="exponential"):
        staleness_weight(np.array([0]), "exponential", 0.6, 4.0)


slots = st.lists(
    st.one_of(st.none(), st.tuples(st.integers(0, 19), st.integers(0, 9))), min_size=1, max_size=8
)  # None, or (version, windows it took to arrive)


@settings(deadline=None, max_examples=80)
@given(slots, st.integers(0, 5), st.sampled_from(["constant", "polynomial", "hinge"]), st.integers(0, 2**32 - 1))
def test_buffered_weights_are_eq_7(drawn, later, kind, seed):
    held = [None if item is None else Slot(item[0], item[0] + 1 + item[1]) for item in drawn]
    window = max((slot.window for slot in held if slot), default=1) + later
    p = np.random.default_rng(seed).random(len(held)) + 0.1
    s = []
    for slot, share in zip(held, p, strict=True):
        if slot is None:
            s.append(0.0)
            continue
        tau = window - 1 - slot.version
        hinge = 1.0 if tau <= 4 else 1 / (0.6 * (tau - 4) + 1)
        s.append(share * {"constant": 1.0, "polynomial": (tau + 1) ** -0.6, "hinge": hinge}[kind])
    got = aggregation_weights(cfg(staleness=kind), window, held, p)
    assert got.dtype == np.float64
    if any(slot for slot in held):
        np.testing.assert_allclose(got, np.array(s) / sum(s), rtol=1e-12)
        assert got.sum() == pytest.approx(1.0)
    else:
        assert not got.any()


def test_a_slot_ages_while_others_are_refreshed():
    p = np.array([0.5, 0.5])
    old = []
    for window in range(1, 8):
        held = [Slot(0, 1), Slot(window - 1, window)]
        weights = aggregation_weights(cfg(), window, held, p)
        tau = window - 1
        assert weights[0] / weights[1] == pytest.approx((tau + 1) ** -0.6)
        old.append(weights[0])
    assert old == sorted(old, reverse=True) and len(set(old)) == len(old)


def test_an_empty_slot_weighs_nothing_and_an_empty_buffer_gives_no_weights():
    p = np.array([0.2, 0.3, 0.5])
    weights = aggregation_weights(cfg(), 1, [None, Slot(0, 1), None], p)
    np.testing.assert_array_equal(weights, [0, 1, 0])
    assert not aggregation_weights(cfg(), 3, [None] * 3, p).any()


def test_fedavg_counts_the_arrivals_of_this_window_by_size_alone():
    p = np.array([0.2, 0.3, 0.5])
    held = [Slot(6, 7), Slot(0, 7), Slot(5, 6)]  # the second is stale, the third came a window ago
    np.testing.assert_allclose(aggregation_weights(cfg("fedavg"), 7, held, p), [0.4, 0.6, 0.0])
    assert not aggregation_weights(cfg("fedavg"), 8, held, p).any()


def test_client_weights():
    samples, sizes = np.full(4, 100.0), np.array([10, 20, 30, 40])
    np.testing.assert_allclose(client_weights("samples_per_round", samples, sizes), [0.25] * 4)
    np.testing.assert_allclose(client_weights("dataset", samples, sizes), [0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(client_weights("uniform", samples, sizes), [0.25] * 4)
    with pytest.raises(KeyError):
        client_weights("other", samples, sizes)

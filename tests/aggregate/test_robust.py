"""Robust aggregations against loops over clients and weights in float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from marked import slow
from stacked_models import LAYOUT, PRUNED, SHAPES, packed, setting

from prfl_jax.aggregate import robust
from prfl_jax.aggregate.maskfedavg import UNROLL_LIMIT, maskfedavg
from prfl_jax.aggregate.stacked import StackedUpdates

RULES = ("median", "trimmed_mean", "krum", "multi_krum")


@functools.partial(jax.jit, static_argnums=(0, 6))
def run(rule, old, buffer, bits, weights, eta, f):
    return getattr(robust, rule)(StackedUpdates(LAYOUT, old, buffer, bits, weights, eta, f))


def holds(masks, weights, i, name, place):
    """Whether slot i counts and holds one weight."""
    return weights[i] > 0 and (name not in PRUNED or masks[name][i][place])


def places():
    return [(name, place) for name, shape in SHAPES.items() for place in np.ndindex(shape)]


def chosen_by_krum(buffer, masks, weights, f, count):
    """Slots that Krum takes (Blanchard et al. 2017), by mean squared distances over what two clients share."""
    clients = [
        i for i in range(len(weights)) if weights[i] > 0 and all(
            np.isfinite(buffer[name][i][place])
            for name, place in places() if name not in PRUNED or masks[name][i][place]
        )
    ]  # fmt: skip
    n = int((np.asarray(weights) > 0).sum())  # clients whose values are not finite are among them
    if n < 2 * f + 3:
        return []
    scores = {}
    for i in clients:
        distances = []
        for j in clients:
            both = [
                (name, place) for name, place in places()
                if name not in PRUNED or (masks[name][i][place] and masks[name][j][place])
            ]  # fmt: skip
            squares = [(float(buffer[k][i][p]) - float(buffer[k][j][p])) ** 2 for k, p in both]
            if j != i:
                distances.append(sum(squares) / len(squares))
        if len(distances) >= n - f - 2:
            scores[i] = sum(sorted(distances)[: n - f - 2])
    return sorted(scores, key=lambda i: (scores[i], i))[: count(n)]


def oracle(rule, old, buffer, masks, weights, eta, f):
    """(new model, weights that stayed), one weight after another."""
    if rule in ("krum", "multi_krum"):
        chosen = chosen_by_krum(buffer, masks, weights, f, (lambda n: 1) if rule == "krum" else lambda n: n - f)
    new, kept = {name: np.array(leaf, np.float64) for name, leaf in old.items()}, 0
    for name, place in places():
        holders = [i for i in range(len(weights)) if holds(masks, weights, i, name, place)]
        values = sorted(float(buffer[name][i][place]) for i in holders if np.isfinite(buffer[name][i][place]))
        if rule in ("krum", "multi_krum"):
            values = [float(buffer[name][i][place]) for i in chosen if i in holders]
        if not values or len(holders) < 2 * f + 1:
            kept += 1
            continue
        if rule == "trimmed_mean":
            trimmed = max(f - (len(holders) - len(values)), 0)
            values = values[trimmed : len(values) - trimmed]
        value = np.median(values) if rule == "median" else np.mean(values)
        new[name][place] = (1 - eta) * new[name][place] + eta * value
    return new, kept


@pytest.mark.parametrize("rule", RULES)
# The fast tests below use the programs of (7, 2) too.
@pytest.mark.parametrize(("clients", "f"), [(1, 0), slow(4, 0), slow(5, 1), (7, 2), slow(10, 2), slow(10, 3)])
def test_equals_the_definition(rule, clients, f):
    for seed, density, eta in itertools.product(range(3), (0.5, 1.0), (1.0, 0.4)):
        rng = np.random.default_rng((seed, clients, f))
        old, buffer, masks, bits = setting(clients, rng, density)
        weights = rng.random(clients).astype(np.float32) * (rng.random(clients) < 0.8)
        bad = rng.integers(clients)
        if seed == 1:
            for name in SHAPES:
                buffer[name][bad] = np.nan
        if seed == 2:
            buffer["dense"][bad] = np.where(masks["dense"][bad], np.inf, 0)
        got = run(rule, old, buffer, bits, weights, np.float32(eta), f)
        want, kept = oracle(rule, old, buffer, masks, weights, eta, f)
        assert int(got.kept) == kept
        for name in SHAPES:
            np.testing.assert_allclose(np.asarray(got.params[name]), want[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_weights_without_holders_enough_stay_to_the_bit(rule):
    rng = np.random.default_rng(3)
    old, buffer, masks, bits = setting(7, rng, 0.4)
    got = run(rule, old, buffer, bits, np.ones(7, np.float32), np.float32(1.0), 2)
    stayed = 0
    for name in PRUNED:
        few = masks[name].sum(axis=0) < 5
        tiny.same(np.asarray(got.params[name])[few], old[name][few])
        stayed += few.sum()
    assert 0 < stayed <= int(got.kept)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ("median", "trimmed_mean"))
def test_many_clients_are_sorted_likewise(rule):
    clients = UNROLL_LIMIT + 5
    old, buffer, masks, bits = setting(clients, np.random.default_rng(0), 0.5)
    weights = np.ones(clients, np.float32)
    got = run(rule, old, buffer, bits, weights, np.float32(1.0), 3)
    want, kept = oracle(rule, old, buffer, masks, weights, 1.0, 3)
    assert int(got.kept) == kept
    tiny.close(got.params, want)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ("trimmed_mean", "multi_krum"))
def test_with_f_0_both_means_are_maskfedavg(rule):
    old, buffer, masks, bits = setting(6, np.random.default_rng(1), 0.5)
    weights = np.full(6, 1 / 6, np.float32)
    got = run(rule, old, buffer, bits, weights, np.float32(0.7), 0)
    tiny.close(got.params, maskfedavg(LAYOUT, old, buffer, bits, weights, 0.7))


@pytest.mark.slow
def test_f_malicious_clients_stay_in_the_range_of_the_honest():
    rng = np.random.default_rng(5)
    old, buffer, masks, _ = setting(9, rng, 1.0)
    honest = {name: models[2:].copy() for name, models in buffer.items()}
    for lie in (1e30, -1e30, np.nan):
        for models in buffer.values():
            models[:2] = lie
        bits = packed(masks, 9)
        for rule in RULES:
            got = run(rule, old, buffer, bits, np.ones(9, np.float32), np.float32(1.0), 2)
            for name in SHAPES:
                values = np.asarray(got.params[name])
                assert (values <= honest[name].max(axis=0) + 1e-6).all(), (rule, lie)
                assert (values >= honest[name].min(axis=0) - 1e-6).all(), (rule, lie)


def test_the_comparisons_sort_all_zeros_and_ones():
    # a network that sorts every sequence of 0 and 1 sorts everything (Knuth, volume 3, theorem 5.3.4Z)
    for count in range(1, 12):
        pairs = robust.comparisons(count)
        for bits in itertools.product((0, 1), repeat=count):
            values = list(bits)
            for low, high in pairs:
                assert low < high < count
                values[low], values[high] = min(values[low], values[high]), max(values[low], values[high])
            assert values == sorted(bits)


@pytest.mark.slow
def test_of_equal_scores_the_lower_slot_is_taken():
    old, buffer, masks, bits = setting(5, np.random.default_rng(2), 1.0)
    for models in buffer.values():
        models[:] = models[:1] + np.arange(5, dtype=np.float32).reshape(5, *[1] * (models.ndim - 1)) % 2
    held = StackedUpdates(LAYOUT, old, jax.tree.map(jnp.asarray, buffer), bits, jnp.ones(5), jnp.float32(1.0), 1)
    scores = np.asarray(robust.krum_scores(held))
    assert scores[0] == scores[2] == scores[4] < scores[1] == scores[3]
    tiny.close(robust.krum(held).params, jax.tree.map(lambda models: models[0], buffer))

"""MaskFedAvg (Algorithm 2) and FedAvg of the buffer, against loops over clients and weights in float64."""

import functools

import jax
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from stacked_models import LAYOUT, PRUNED, SHAPES, packed, setting

from prfl_jax.aggregate.maskfedavg import UNROLL_LIMIT, fedavg, maskfedavg

aggregate = jax.jit(functools.partial(maskfedavg, LAYOUT), static_argnums=4)
plain_average = jax.jit(fedavg)


def algorithm_2(old, buffer, masks, s, eta):
    """Algorithm 2 (Eq. 6-11), one element after another, with explicit masks; biases are held by all."""
    clients = len(s)
    p = [s[i] / sum(s) for i in range(clients)] if sum(s) > 0 else [0.0] * clients  # line 3, Eq. 7
    new = {}
    for name, shape in SHAPES.items():
        out = np.array(old[name], np.float64)
        for place in np.ndindex(shape):
            w_acc = mask_acc = 0.0
            for i in range(clients):
                held = float(masks[name][i][place]) if name in PRUNED else 1.0
                w_acc += p[i] * float(buffer[name][i][place])  # line 4, Eq. 8
                mask_acc += p[i] * held  # line 6, Eq. 9
            local = w_acc / mask_acc if mask_acc != 0 else out[place]  # lines 9-13, Eq. 10
            out[place] = (1 - eta) * out[place] + eta * local  # line 15, Eq. 11
        new[name] = out
    return new


def assert_old_where_nobody_holds(new, old, masks, weights):
    for name in PRUNED:
        nobody = ~(masks[name] & (weights > 0).reshape(-1, *[1] * len(SHAPES[name]))).any(0)
        tiny.same(np.asarray(new[name])[nobody], old[name][nobody])


@settings(deadline=None, max_examples=30)
@given(
    # few different numbers of clients, each compiled once
    clients=st.sampled_from([1, 2, 3, 7, 12]),
    density=st.sampled_from([0.02, 0.3, 0.9, 1.0]),
    eta=st.sampled_from([1.0, 0.4]),
    zeros=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_algorithm_2(clients, density, eta, zeros, seed):
    rng = np.random.default_rng(seed)
    old, buffer, masks, bits = setting(clients, rng, density)
    s = rng.random(clients) + 0.05
    if zeros:
        s[rng.random(clients) < 0.5] = 0.0
    weights = (s / s.sum() if s.sum() > 0 else s).astype(np.float32)
    new = aggregate(old, buffer, bits, weights, eta)
    tiny.close(new, algorithm_2(old, buffer, masks, s, eta), 1e-6)
    assert_old_where_nobody_holds(new, old, masks, weights)
    if not s.any():
        tiny.same(new, old)


def test_more_clients_than_are_unrolled():
    clients = UNROLL_LIMIT + 3
    rng = np.random.default_rng(0)
    old, buffer, masks, bits = setting(clients, rng, 0.04)
    s = rng.random(clients)
    weights = (s / s.sum()).astype(np.float32)
    new = aggregate(old, buffer, bits, weights, 1.0)
    tiny.close(new, algorithm_2(old, buffer, masks, s, 1.0), 1e-6)
    assert_old_where_nobody_holds(new, old, masks, weights)
    tiny.close(
        plain_average(old, buffer, weights),
        {name: np.tensordot(s / s.sum(), buffer[name].astype(np.float64), 1) for name in SHAPES},
        1e-6,
    )


def test_server_lr_does_not_move_a_weight_that_nobody_holds():
    old, buffer, masks, bits = setting(3, np.random.default_rng(1), 0.2)
    weights = np.array([0.2, 0.3, 0.5], np.float32)
    new = aggregate(old, buffer, bits, weights, 0.4)
    assert_old_where_nobody_holds(new, old, masks, weights)  # (1 - 0.4) w + 0.4 w would differ in the last bit


def test_a_held_weight_of_zero_counts():
    """Masks are explicit: a client that trained a weight to 0 pulls the average there."""
    old, buffer, masks, bits = setting(2, np.random.default_rng(2), 1.0)
    buffer["dense"][0, 1, 1] = 0.0
    new = aggregate(old, buffer, bits, np.array([0.25, 0.75], np.float32), 1.0)
    assert float(new["dense"][1, 1]) == pytest.approx(0.75 * buffer["dense"][1, 1, 1], rel=1e-6)


def test_masks_agree_with_eq_6_where_no_weight_is_zero():
    rng = np.random.default_rng(3)
    old, buffer, masks, bits = setting(4, rng, 0.4)
    assert all((buffer[name][masks[name]] != 0).all() for name in PRUNED)
    inferred = {name: buffer[name] != 0 for name in PRUNED}  # Eq. 6
    s = rng.random(4)
    weights = (s / s.sum()).astype(np.float32)
    new = aggregate(old, buffer, bits, weights, 1.0)
    tiny.same(new, aggregate(old, buffer, packed(inferred, 4), weights, 1.0))
    tiny.close(new, algorithm_2(old, buffer, inferred, s, 1.0), 1e-6)


def test_empty_slots_and_slots_of_weight_0_change_nothing():
    rng = np.random.default_rng(4)
    old, buffer, masks, bits = setting(4, rng)
    for name in SHAPES:
        buffer[name][1] = 0.0  # an empty slot: no mask, no model
    for name in PRUNED:
        masks[name][1] = False
    weights = np.array([0.5, 0.0, 0.5, 0.0], np.float32)
    new = aggregate(old, buffer, packed(masks, 4), weights, 1.0)
    two = [0, 2]
    fewer = {name: part[two] for name, part in masks.items()}
    want = algorithm_2(old, {name: part[two] for name, part in buffer.items()}, fewer, [0.5, 0.5], 1.0)
    tiny.close(new, want, 1e-6)


def test_slots_of_three_generations_in_one_aggregation():
    """Masks of different prunings side by side: each slot is read with the mask it was sent."""
    rng = np.random.default_rng(5)
    old, buffer, _, _ = setting(3, rng, 1.0)
    masks = {name: np.zeros((3, *SHAPES[name]), bool) for name in PRUNED}
    for client, percent in enumerate((30, 60, 20)):
        for name in PRUNED:  # each generation ranks the weights anew
            order = rng.permutation(int(np.prod(SHAPES[name])))
            masks[name][client].flat[order[: len(order) * percent // 100]] = True
    for name in PRUNED:
        buffer[name] = np.where(masks[name], buffer[name], np.float32(0))
        assert not (masks[name][2] <= masks[name][0]).all()  # not nested in one another
    s = [1.0, 2**-0.6, 3**-0.6]
    weights = (np.array(s) / sum(s)).astype(np.float32)
    new = aggregate(old, buffer, packed(masks, 3), weights, 1.0)
    tiny.close(new, algorithm_2(old, buffer, masks, s, 1.0), 1e-6)


def test_full_masks_give_fedavg():
    rng = np.random.default_rng(6)
    old, buffer, _, bits = setting(5, rng, 1.0)
    s = rng.random(5)
    weights = (s / s.sum()).astype(np.float32)
    tiny.close(aggregate(old, buffer, bits, weights, 1.0), plain_average(old, buffer, weights), 1e-6)


@pytest.mark.parametrize("weights", [(0.2, 0.3, 0.5), (0.0, 1.0, 0.0), (0.25, 0.5, 0.0)])
def test_fedavg_of_the_buffer_counts_pruned_weights_as_zero(weights):
    old, buffer, _, _ = setting(3, np.random.default_rng(7))
    new = plain_average(old, buffer, np.array(weights, np.float32))
    p = np.array(weights) / sum(weights)
    tiny.close(new, {name: np.tensordot(p, buffer[name].astype(np.float64), 1) for name in SHAPES}, 1e-6)


def test_fedavg_of_nothing_leaves_the_model():
    old, buffer, _, _ = setting(3, np.random.default_rng(8))
    tiny.same(plain_average(old, buffer, np.zeros(3, np.float32)), old)

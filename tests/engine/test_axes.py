"""The ways through the clients, `map` and `vmap`, at arrival or ahead of it; what a row of the plan does."""

import jax
import numpy as np
import pytest
import tiny
from marked import slow_except
from unlike import on_the_device, unlike

from prfl_jax.aggregate import AggregationWeights
from prfl_jax.engine.plan import MAX_ROWS, LocalRound, make_row, stack_rows
from prfl_jax.local import LOCAL_WORKS
from prfl_jax.strategies.table import METHODS
from prfl_jax.submodel import SUBMODELS
from prfl_jax.submodel.masks import unpack

LR = 0.3


# the other strategies differ from one of these on the host alone
STRATEGIES = unlike(lambda row: (on_the_device(row), row.window.dispatch))


@pytest.mark.parametrize("strategy", slow_except(STRATEGIES, "fedbuff"))
def test_map_and_vmap_and_training_ahead_agree_after_20_windows(strategy):
    # by |w|, so that a rounding error does not reach the choice of what is pruned
    settings = dict(rounds=20, density__interval=4, submodel__importance="weight")
    ways = {"engine__clients": "vmap"}, {"engine__clients": "vmap", "engine__train": "pending"}
    if SUBMODELS.find(METHODS[strategy].submodel).evidence is not None:
        ways = ways[:1]  # gradients are not kept until the arrival
    by_map = tiny.run(strategy, engine__clients="map", **settings)
    assert by_map.experiment.simulation.engine.config.group == 0
    for way in ways:
        other = tiny.run(strategy, **way, **settings)
        tiny.close(other.params, by_map.params, 1e-5)
        assert other.of("interval") == by_map.of("interval")
        for one, theirs in zip(by_map.of("window"), other.of("window"), strict=True):
            np.testing.assert_allclose(theirs.pop("loss"), one.pop("loss"), rtol=1e-4)
            assert one == theirs  # arrivals, staleness, seconds, bytes
        config = other.experiment.simulation.engine.config
        ahead = LOCAL_WORKS.find(METHODS[strategy].local).own_masks  # trained ahead in any case
        train = "pending" if ahead else way.get("engine__train", "arrival")
        assert config.group > 0 and config.train == train
    if strategy == "prfl":
        assert min(min(r["percents"]) for r in by_map.of("interval")) < 60
        assert len({len(w["arrivals"]) for w in by_map.of("window")}) > 1  # some absent, some not


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["prfl", "fedbuff"])
# of four clients: each, an incomplete last group, more than all
@pytest.mark.parametrize("group", [1, 3, 9])
def test_groups_of_any_size_agree(strategy, group):
    settings = dict(rounds=20, density__interval=4, submodel__importance="weight")
    by_map = tiny.run(strategy, engine__clients="map", **settings)
    in_groups = tiny.run(strategy, engine__clients="vmap", engine__group=group, **settings)
    tiny.close(in_groups.params, by_map.params, 1e-5)
    for one, other in zip(by_map.of("window"), in_groups.of("window"), strict=True):
        np.testing.assert_allclose(other.pop("loss"), one.pop("loss"), rtol=1e-4)
        assert one == other
    all_at_once = tiny.run(strategy, engine__clients="vmap", **settings)
    assert in_groups.report["config_hash"] == all_at_once.report["config_hash"]


@pytest.fixture(scope="module", params=slow_except(["map", "vmap"], "map"))
def rows(request):
    """Two rows and one that is not run, from hand-made levels: (state before, state after, losses)."""
    simulation = tiny.simulation("prfl", engine__clients=request.param, engine__train="arrival")
    state = simulation.init_state(simulation.init_key)
    rng = np.random.default_rng(0)
    levels = tuple(rng.choice([5, 20, 60, 100], level.shape).astype(np.int8) for level in state.levels)
    state = state._replace(levels=jax.device_put(levels))
    before = jax.device_get(state)
    sent = [(0, 20), (1, 60), (2, 100), (3, 5)]
    plan = [
        make_row(4, sent, [LocalRound(2, 2, 0, LR), LocalRound(0, 0, 0, LR)]),
        make_row(4, [(0, 60)], [LocalRound(1, 1, 3, LR)], AggregationWeights(np.array([0.25, 0.25, 0.5, 0.0]))),
        make_row(4, sent, [LocalRound(3, 3, 0, LR)], AggregationWeights(np.array([1.0, 0.0, 0.0, 0.0]))),
    ]
    chunk = simulation.engine.run_chunk
    after, seen = chunk(state, simulation.device_data(), stack_rows(plan, MAX_ROWS), np.int32(2), simulation.keys)
    return before, jax.device_get(after), np.asarray(seen.losses)


def kernels(params, client=None):
    pair = [params[layer]["kernel"] for layer in ("Dense_0", "Dense_1")]
    return pair if client is None else [kernel[client] for kernel in pair]


def test_each_client_is_sent_the_server_model_under_its_own_mask(rows):
    before, after, _ = rows
    for client, percent in enumerate((60, 60, 100, 5)):  # client 0 was sent a larger one in the second row
        for k, (sent, w) in enumerate(zip(kernels(after.sent, client), kernels(before.params), strict=True)):
            mask = before.levels[k] <= percent
            tiny.same(sent, np.where(mask, w, np.float32(0)))  # the first row closes no window: W was the old one
            np.testing.assert_array_equal(unpack(after.sent_bits[k][client], w.size), mask.ravel())
        for layer in ("Dense_0", "Dense_1"):
            tiny.same(after.sent[layer]["bias"][client], before.params[layer]["bias"])


def test_an_arrival_fills_its_own_slot_with_the_mask_it_was_sent(rows):
    before, after, losses = rows
    for client, percent in ((0, 20), (1, 60), (2, 100)):
        for k, (update, w) in enumerate(zip(kernels(after.buffer, client), kernels(before.params), strict=True)):
            mask = before.levels[k] <= percent
            np.testing.assert_array_equal(unpack(after.buffer_bits[k][client], w.size), mask.ravel())
            assert not update[~mask].any() and (update[mask] != w[mask]).any()
    empty = jax.tree.map(lambda stack: stack[3], (after.buffer, after.buffer_bits))
    assert not any(leaf.any() for leaf in jax.tree.leaves(empty))
    # losses stand in order of arrival, 0 where nobody arrived
    assert (losses[0, :2] > 0).all() and losses[1, 0] > 0
    assert not losses[0, 2:].any() and not losses[1, 1:].any() and not losses[2:].any()


def test_the_window_closes_once(rows):
    before, after, _ = rows
    p = {0: 0.25, 1: 0.25, 2: 0.5}
    for k, layer in enumerate(("Dense_0", "Dense_1")):
        w_acc = sum(share * kernels(after.buffer, c)[k].astype(np.float64) for c, share in p.items())
        masks = {c: before.levels[k] <= percent for c, percent in ((0, 20), (1, 60), (2, 100))}
        mask_acc = sum(share * masks[c] for c, share in p.items())
        tiny.close(after.params[layer]["kernel"], w_acc / mask_acc, 1e-6)


def test_importance_counts_each_arrival_where_it_held_the_weight(rows):
    before, after, _ = rows
    for k in range(2):
        held = sum((before.levels[k] <= percent).astype(int) for percent in (20, 60, 100))
        np.testing.assert_array_equal(after.importance.held[k], held)
        total = np.zeros(held.shape)
        for client, percent in ((0, 20), (1, 60), (2, 100)):
            sent = np.where(before.levels[k] <= percent, kernels(before.params)[k], 0)
            total += ((sent.astype(np.float64) - kernels(after.buffer, client)[k]) / LR) ** 2
        tiny.close(after.importance.total[k], total, 1e-5)
    tiny.same(after.levels, before.levels)

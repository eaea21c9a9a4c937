"""Whole runs of edge pruning against Algorithms 1 to 3 written out in float64 (`edge_oracle.py`)."""

import jax
import numpy as np
import pytest
import tiny
from edge_oracle import EdgeOracle
from marked import slow_except
from prfl_oracle import masked

from prfl_jax.report import comparable
from prfl_jax.runtime.experiment import Experiment

PRUNING = dict(pruning__interval=3, pruning__initial_steps=4, local__lr=0.5, rounds=11)
RUNS = {
    "layerwise": ("layerwise", dict(pruning__initial_density=0.5)),
    "threshold, stale values": ("threshold", dict(pruning__recovered="stale", pruning__initial_rounds=2)),
    "without an initial stage": ("layerwise", dict(pruning__initial_rounds=0, pruning__gradients="round")),
    "thresholds by a bandit": ("layerwise_bandit", dict(pruning__initial_density=0.5)),
    "sizes by a policy": (
        "layerwise",
        dict(submodel__name="own_sizes", density__name="time_balance", density__interval=3, pruning__initial_rounds=0),
    ),
    "more votes than the share": ("layerwise", dict(pruning__votes_above=True, pruning__votes=0.5)),
}


@pytest.fixture(scope="module", params=slow_except(RUNS, "layerwise", "threshold, stale values"))
def pair(request):
    """(the run, the oracle's)."""
    strategy, changes = RUNS[request.param]
    experiment = Experiment(tiny.config(strategy, **{**PRUNING, **changes}))
    simulation = experiment.simulation
    initial = jax.device_get(simulation.init_state(simulation.init_key).params)
    ran = tiny.run_experiment(experiment)
    percents = [dict(zip([d[0] for d in w["client_bytes_down"]], w["percents"], strict=True)) for w in ran.of("window")]
    oracle = EdgeOracle(simulation, initial, percents)
    oracle.run(experiment.config.rounds)
    return ran, oracle


def test_masks_hold_what_the_loops_say(pair):
    ran, oracle = pair
    changes, size = ran.of("masks"), ran.experiment.simulation.method.size
    counts = [[round(share * size.total) - size.fixed for share in (r["server"], *r["clients"])] for r in changes]
    assert counts == oracle.retained
    assert counts[-1][0] < size.prunable  # something was pruned
    assert len({tuple(row) for row in counts}) > 1


def test_the_server_model(pair):
    ran, oracle = pair
    tiny.close(ran.params, masked(oracle.w, oracle.server), 1e-5)


def test_training_losses(pair):
    ran, oracle = pair
    for window, losses in zip(ran.of("window"), oracle.losses, strict=True):
        np.testing.assert_allclose(window["loss"], [losses[client] for client in window["arrivals"]], rtol=1e-5)


def test_bytes_of_every_message(pair):
    ran, oracle = pair
    for window, up, down in zip(ran.of("window"), oracle.up, oracle.down, strict=True):
        sent = dict(zip(window["arrivals"], window["client_bytes_up"], strict=True))
        assert [sent[client] for client in range(4)] == up
        assert window["client_bytes_down"] == [[client, down] for client in range(4)]
        assert window["bytes_down"] == down  # one copy


# clients 2 and 3 need several windows for a round, so that some intervals end in the middle of one
IN_WINDOWS = dict(
    window__close="fixed", window__first_waits_for_all=True, pruning__initial_rounds=0, pruning__interval=4, rounds=24,
    eval_every_s=1.0,
)  # fmt: skip


def test_each_client_prunes_in_its_first_round_of_an_interval():
    ran = tiny.run("layerwise", **IN_WINDOWS)
    pruned = {(record["window"], client) for record in ran.of("masks") for client in record["pruned"]}
    sent, last, seen = dict.fromkeys(range(4), 1), [0] * 4, 0
    for window in ran.of("window"):
        for client, _ in window["client_bytes_down"]:
            sent[client] = window["window"]
        for client in window["arrivals"]:
            interval = (sent[client] - 1) // 4
            assert ((window["window"], client) in pruned) == (interval > last[client])
            seen += interval > last[client] and (window["window"] - 1) // 4 > interval  # it ended in a later interval
            last[client] = max(last[client], interval)
    assert seen and pruned


@pytest.mark.slow
@pytest.mark.parametrize("stops", [range(3, 80, 11), range(5, 80, 12)])
def test_it_goes_on_from_wherever_it_was_stopped(stops, tmp_path):
    """Also between a window that was looked at, in which nobody prunes, and its chunk."""
    whole, experiment = tiny.run("layerwise", **IN_WINDOWS), Experiment(tiny.config("layerwise", **IN_WINDOWS))
    for stop in stops:
        again = tiny.stopped_and_resumed(experiment, tmp_path / str(stop), stop)
        assert comparable(again.report) == comparable(whole.report)


@pytest.mark.slow
def test_a_density_counts_from_the_pruning_that_follows_it():
    """Between prunings round times belong to the density that is held, so the balance of two clients settles."""
    links = dict(clients__number=2, clients__up_mb_s=(2.0, 1.0), clients__down_mb_s=(80.0,) * 2, clients__sigma=0.0)
    changes = dict(server__contention=False, window__close="all", density__name="time_balance", density__interval=5)
    ran = tiny.run("prfl_personal", **links, **changes, pruning__interval=5, rounds=31, eval_every_s=1000.0)
    decided = [record["percents"][1] for record in ran.of("interval")]
    assert [record["window"] for record in ran.of("interval")] == [5, 10, 15, 20, 25, 30]
    assert all(abs(percent - 52) <= 3 for percent in decided)
    for record, percent in zip(ran.of("masks"), decided, strict=True):
        size = ran.experiment.simulation.method.size
        assert record["clients"][1] == pytest.approx(
            (percent / 100 * size.prunable + size.fixed) / size.total, abs=0.01
        )
    sent = [window["percents"][1] for window in ran.of("window")]
    assert sent == [100] * 5 + [percent for percent in decided for _ in range(5)][: len(sent) - 5]


def test_a_bandit_decides_where_its_clients_prune_next():
    ran = tiny.run("layerwise_bandit", pruning__initial_rounds=0, pruning__interval=4, rounds=14)
    assert [record["window"] for record in ran.of("interval")] == [4, 8, 12]
    assert [record["window"] for record in ran.of("masks")] == [5, 9, 13]
    sent = [tuple(window["percents"]) for window in ran.of("window")]
    assert len(set(sent[:4])) == len(set(sent[4:8])) == len(set(sent[8:12])) == 1 and len(set(sent)) == 4

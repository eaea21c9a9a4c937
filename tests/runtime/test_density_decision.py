"""What is measured on held-out data before a density decision: what the policy asks for, and nothing else."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import tiny
from marked import slow

from prfl_jax.density import BalancedDensity
from prfl_jax.engine.evaluate import Evaluator
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.runtime.scoring import Scorer
from prfl_jax.system.environment import numeric_machine
from prfl_jax.system.signals import Interrupted

STOPS = {"stop_early": True, "rounds": 60, "density__patience": 1, "density__min_delta": 0.9}
MEASURED = {"client_accuracy", "client_loss", "server_accuracy"}


class ByLoss(BalancedDensity):
    """Time balance that also looks at losses."""

    needs = frozenset({"client_loss"})

    def consider(self, evidence):
        assert evidence.client_loss.shape == (4,)
        assert evidence.client_accuracy is None and evidence.server_accuracy is None


class ByTraining(BalancedDensity):
    """Time balance that also looks at training losses; keeps what it is given."""

    needs = frozenset({"train_loss"})
    given = []

    def consider(self, evidence):
        self.given.append(evidence.train_loss.tolist())


def measured(ran):
    return [record.keys() & MEASURED for record in ran.of("interval")]


@pytest.mark.slow
def test_a_method_that_asks_for_nothing_evaluates_nothing():
    assert tiny.simulation("fedavg").eval_sets()[1] is None
    assert tiny.simulation("prfl").eval_sets()[1] is not None
    for name in ("fedavg", "clients"):
        with mock.patch.object(Scorer, name, side_effect=AssertionError("evaluated")):
            ran = tiny.run_experiment(Experiment(tiny.config("fedavg")))
    assert ran.of("interval") == [] and ran.report["stop_rule"] is None and ran.of("eval")


@pytest.mark.slow
def test_time_balance_decides_without_accuracies():
    with mock.patch.object(Scorer, "clients", side_effect=AssertionError("evaluated")):
        ran = tiny.run_experiment(Experiment(tiny.config("prfl_norecover")))
    assert measured(ran) == [set(), set()] and min(ran.of("interval")[-1]["percents"]) < 100


def test_prfl_asks_for_clients_and_server():
    assert measured(tiny.run("prfl")) == [{"client_accuracy", "server_accuracy"}] * 2


@pytest.mark.parametrize(("strategy", "lowest"), [slow("fedavg", 100), ("prfl_norecover", 99)])
def test_stop_early_without_recovery_asks_for_the_server_alone(strategy, lowest):
    """The run ends when the server's accuracy stops improving, also if densities are below 1."""
    ran = tiny.run(strategy, **STOPS)
    assert ran.report["ended"]["how"] == "stop_rule" and ran.report["windows"] == 6
    assert measured(ran) == [{"server_accuracy"}] * 2
    assert [record["stop"] for record in ran.of("interval")] == [False, True]
    assert min(ran.of("interval")[-1]["percents"]) <= lowest


def test_a_policy_by_losses_gets_each_slots_loss(tmp_path):
    config = tiny.config("prfl", density__name="tests.runtime.test_density_decision:ByLoss", rounds=9)
    evaluate, losses = Evaluator.__call__, []

    def watched(self, params, data, *more):
        scores = evaluate(self, params, data, *more)
        if scores.count.sum() < 200:  # held-out samples, on which the clients' models alone are evaluated
            losses.append(scores.mean_loss)
        return scores

    with mock.patch.object(Evaluator, "__call__", watched):
        ran = tiny.run_experiment(Experiment(config))
    assert measured(ran) == [{"client_loss"}] * 3
    seen = [loss for record in ran.of("interval") for loss in record["client_loss"]]
    assert len(seen) == 12 and np.isfinite(seen).all()
    assert set(seen) == set(losses)  # a slot that did not change is not evaluated again
    experiment = Experiment(config)
    with pytest.raises(Interrupted):
        experiment.run(tmp_path, progress=False, guard=tiny.StopAt(8))
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        resumed = tiny.Ran(experiment, experiment.run(tmp_path, progress=False))
    assert resumed.of("interval") == ran.of("interval")


def test_a_policy_gets_training_losses_since_its_last_decision():
    ByTraining.given.clear()
    name = "tests.runtime.test_density_decision:ByTraining"
    config = tiny.config("prfl_norecover", density__name=name, density__interval=2, window__dt_s=1.5)
    with mock.patch.object(Scorer, "clients", side_effect=AssertionError("evaluated")):
        ran = tiny.run_experiment(Experiment(config))
    assert ran.experiment.simulation.eval_sets()[1] is None and measured(ran) == [set()] * 4
    expected, last = [], [float("nan")] * 4
    for window in ran.of("window"):
        for client, loss in zip(window["arrivals"], window["loss"], strict=True):
            last[client] = loss
        if window["window"] % 2 == 0:
            expected.append(last)
            last = [float("nan")] * 4
    np.testing.assert_array_equal(ByTraining.given, expected)
    assert np.isnan(expected).any() and np.isfinite(expected).sum() > 4


def rewards_by_hand(windows):
    """FedMP's rewards from the losses and times of the records of windows: {window: {client: reward or None}}."""
    loss, round_s, found = {}, {}, {}
    for window in windows:
        round_s |= dict(zip(window["arrivals"], window["round_s"], strict=True))
        mean = sum(round_s.values()) / max(len(round_s), 1)
        there = found[window["window"]] = {}
        for client, now in zip(window["arrivals"], window["loss"], strict=True):
            gain = max((loss[client] - now) / loss[client], 0.0) if client in loss else None
            there[client] = gain if gain is None else gain / (abs(round_s[client] - mean) / mean + 0.05)
            loss[client] = now
    return found


def test_bandit_learns_from_the_runs_own_losses_and_times(tmp_path):
    """Fixed windows, so some clients are in flight at each decision; resumed in the middle it is the same run."""
    config = tiny.config("prfl_norecover", density__name="bandit", density__loss_change="own", rounds=14)
    experiment = Experiment(config)
    evaluated = mock.patch.object(Scorer, "clients", side_effect=AssertionError("evaluated"))
    with evaluated, mock.patch("prfl_jax.runtime.experiment.run_figure"):
        with mock.patch("prfl_jax.runtime.loop.numeric_machine", wraps=numeric_machine) as asked:
            ran = tiny.Ran(experiment, experiment.run(tmp_path / "whole", progress=False))
        assert asked.call_count <= 3  # it costs more than a decision: for checkpoints, not in each of 14 windows
        with pytest.raises(Interrupted):
            experiment.run(tmp_path / "resumed", progress=False, guard=tiny.StopAt(15))
        resumed = tiny.Ran(experiment, experiment.run(tmp_path / "resumed", progress=False))
    assert resumed.of("interval") == ran.of("interval") and resumed.of("window") == ran.of("window")
    tiny.same(resumed.params, ran.params)

    expected, before = rewards_by_hand(ran.of("window")), [100] * 4
    assert 5 < sum(value is not None and value > 0 for there in expected.values() for value in there.values())
    decided = {record["window"]: record for record in ran.of("interval")}
    assert decided.keys() == {window for window, there in expected.items() if there}
    for window, record in decided.items():
        wanted = [expected[window].get(client) for client in range(4)]
        np.testing.assert_allclose(np.array(record["rewards"], float), np.array(wanted, float), rtol=1e-12)
        kept = [client for client in range(4) if client not in expected[window]]
        assert [record["percents"][client] for client in kept] == [before[client] for client in kept]
        before = record["percents"]
    assert any(len(there) < 4 for there in expected.values()) and min(before) < 100
    assert ran.report["host"]["decide_s"] > 0 and ran.report["host"]["prune_s"] > 0

    sent = [dict(zip((c for c, _ in w["client_bytes_down"]), w["percents"], strict=True)) for w in ran.of("window")]
    first = min(decided)
    for entry in ran.report["clients"]:
        chosen = [100 - percents[entry["client"]] for percents in sent[first:] if entry["client"] in percents]
        assert entry["ratios"]["tenths"] == [sum(ratio // 10 == tenth for ratio in chosen) for tenth in range(10)]
        assert entry["ratios"]["mean_last"] == pytest.approx(sum(chosen) / len(chosen) / 100)

"""Early stopping, time balance and recovery, against hand-worked steps of Algorithm 1."""

import json
import types

import numpy as np
import pytest

from prfl_jax.clock import Arrival, Dispatch, Window
from prfl_jax.density import (
    BalancedDensity,
    DensityPolicy,
    EarlyStopping,
    Evidence,
    FullDensity,
    Recovery,
    RunningDensities,
    TimeBalance,
    evidence_needed,
    find_density,
    make_density,
)
from prfl_jax.system.errors import UserError


def config(**changes):
    keys = dict(name="recovery", rule="normalised", interval=3, min_density=0.05, delta_rho=0.2, tiers=(1.0, 0.25))
    keys.update(patience=2, min_delta=0.0)
    return types.SimpleNamespace(**{**keys, **changes})


def arrival(client, round_s, index=0):
    return Arrival(client, index, 0, 10.0, 10.0, 10.0, 10.0 + round_s, 0)


def observe(policy, times, density_pct=None):
    """One arrival of each client that has a time."""
    pairs = [(client, t) for client, t in enumerate(times) if t is not None]
    ran = policy.density_pct if density_pct is None else np.array(density_pct)
    policy.observe([arrival(client, t) for client, t in pairs], [ran[client] for client, _ in pairs])


# --- early stopping ---


def test_early_stopping_counts_what_did_not_improve():
    stopping = EarlyStopping(patience=3)
    fired = [stopping.update(v) for v in (0.5, 0.6, 0.55, 0.6, 0.58)]
    assert fired == [False, False, False, False, True]  # .6 equals the best: no improvement


def test_early_stopping_starts_anew_after_it_fired():
    stopping = EarlyStopping(patience=1)
    # .5 fires against .6; then .4 is the new best, .45 improves, .41 fires.
    assert [stopping.update(v) for v in (0.6, 0.5, 0.4, 0.45, 0.41)] == [False, True, False, False, True]


def test_identical_evaluations_and_nan_do_not_count():
    stopping = EarlyStopping(patience=2)
    assert not any(stopping.update(v) for v in (0.5, 0.4, 0.4, 0.4, float("nan"), 0.4))
    assert stopping.update(0.45)


def test_min_delta_is_the_least_improvement():
    stopping = EarlyStopping(patience=2, min_delta=0.1)
    assert [stopping.update(v) for v in (0.5, 0.59, 0.58)] == [False, False, True]
    stopping = EarlyStopping(patience=2, min_delta=0.1)
    assert not any(stopping.update(v) for v in (0.5, 0.61, 0.6))


@pytest.mark.parametrize("arguments", [(0,), (1, -0.1), (1, float("nan"))])
def test_early_stopping_refuses(arguments):
    with pytest.raises(UserError, match="density"):
        EarlyStopping(*arguments)


# --- time balance ---


def balance(rule, entries, present, minimum=0.05, length=50):
    times = TimeBalance(rule, len(present), length)
    for client, t, percent in entries:
        times.add(client, t, percent)
    return times.densities(np.array(present), np.full(len(present), minimum)).tolist()


def test_normalised_compares_at_equal_density():
    # Client 1 needs 40 s at density 1, so 10 s at .25; it must stay at .25.
    assert balance("normalised", [(0, 10, 100), (1, 40, 100)], [1, 1]) == [1.0, 0.25]
    assert balance("normalised", [(0, 10, 100), (1, 10, 25)], [1, 0.25]) == [1.0, 0.25]


def test_literal_gives_a_pruned_client_its_large_model_back():
    assert balance("literal", [(0, 10, 100), (1, 40, 100)], [1, 1]) == [1.0, 0.25]
    assert balance("literal", [(0, 10, 100), (1, 10, 25)], [1, 0.25]) == [1.0, 1.0]


def test_damped_steps_from_the_present_density():
    assert balance("damped", [(0, 10, 100), (1, 40, 100)], [1, 1]) == pytest.approx([1.0, 1 - 0.9 * 0.75])
    assert balance("damped", [(0, 10, 100), (1, 10, 25)], [1, 0.25]) == [1.0, 0.25]


def test_clip_and_empty_queues():
    assert balance("normalised", [(0, 1, 100), (1, 1000, 100)], [1, 1, 0.7], minimum=0.1) == [1.0, 0.1, 0.7]
    assert balance("literal", [], [1, 0.3]) == [1.0, 0.3]
    assert balance("normalised", [(0, 0, 100), (1, 0, 100)], [1, 1]) == [1.0, 1.0]
    assert balance("normalised", [(0, 0, 100), (1, 5, 100)], [1, 1]) == [1.0, 0.05]


def test_queue_holds_the_last_times():
    times = TimeBalance("literal", 2, length=2)
    for t in (100, 2, 4):
        times.add(0, t, 100)
    assert times.mean_times()[0] == 3.0 and np.isnan(times.mean_times()[1])


def test_time_balance_refuses():
    for rule, length in (("other", 3), ("literal", 0)):
        with pytest.raises(UserError, match="density"):
            TimeBalance(rule, 2, length)


# --- policies ---


def test_densities_are_one_until_the_first_decision():
    for name in ("full", "time_balance", "recovery"):
        policy = make_density(config(name=name), 3)
        observe(policy, [10, 20, 40])
        assert policy.density_pct.tolist() == [100, 100, 100]


def test_time_balance_decides_and_snaps():
    policy = make_density(config(name="time_balance"), 3)
    observe(policy, [10, 15, None])
    decision = policy.decide(Evidence(np.array([0.5, 0.5, np.nan])))
    assert decision.density_pct.tolist() == policy.density_pct.tolist() == [100, 67, 100]
    assert decision.min_densities.tolist() == [0.05] * 3
    assert decision.mean_times[:2].tolist() == [10, 15] and np.isnan(decision.mean_times[2])
    assert not decision.triggered.any() and not decision.stop


def test_full_density_asks_for_nothing_and_decides_nothing():
    policy = make_density(config(name="full", patience=1), 2)
    assert policy.needs == frozenset() and policy.stays_full
    assert not any(policy.decides_after(window) for window in range(1, 20))
    observe(policy, [10, 40])
    decisions = [policy.decide(Evidence(server_accuracy=accuracy)) for accuracy in (0.5, 0.4, 0.3)]
    assert not any(decision.stop for decision in decisions)
    assert all(decision.density_pct.tolist() == [100, 100] for decision in decisions)
    assert decisions[0].min_densities.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("name", ["full", "time_balance", "tiers"])
def test_stop_early_asks_for_the_servers_score(name):
    """Without recovery the run may stop at any densities."""
    policy = make_density(config(name=name, patience=1), 2, stop_early=True)
    assert policy.needs == evidence_needed(name, True) == {"server_score"}
    assert evidence_needed(name, False) == frozenset() == make_density(config(name=name), 2).needs
    assert [window for window in range(2, 10) if policy.decides_after(window)] == [3, 6, 9]
    observe(policy, [10, 40])
    decisions = [policy.decide(Evidence(server_score=score)) for score in (0.5, 0.5, 0.4)]
    assert [d.stop for d in decisions] == [False, False, True]  # the second is identical: it does not count
    assert decisions[-1].density_pct.tolist() == ([100, 100] if name == "full" else [100, 25])


@pytest.mark.parametrize("name", ["recovery", "tiers_recovery"])
def test_recovery_asks_for_scores_and_has_the_stop_rule(name):
    needs = {"client_score", "server_score"}
    assert evidence_needed(name, False) == evidence_needed(name, True) == find_density(name).needs == needs
    for slow_s, stops in ((10, [False, True]), (40, [False, False])):  # with 40 s client 1 is pruned
        policy = make_density(config(name=name, patience=1), 2)
        observe(policy, [10, slow_s])
        assert [policy.decide(Evidence(server_score=score)).stop for score in (0.5, 0.4)] == stops


# --- plugins ---


class ByLoss(DensityPolicy):
    """Half a model for the client with the lowest loss."""

    needs = frozenset({"client_loss"})

    def consider(self, evidence):
        self.seen = evidence

    def balance(self, present):
        loss = self.seen.client_loss
        return np.where(loss == np.nanmin(loss), 0.5, 1.0)


def test_a_policy_may_decide_by_losses():
    policy = ByLoss(config(), 3)
    assert policy.recovers and policy.decides_after(3) and not policy.decides_after(2)
    decision = policy.decide(Evidence(client_loss=np.array([0.7, 0.2, np.nan])))
    assert decision.density_pct.tolist() == [100, 50, 100] and policy.seen.client_accuracy is None


def test_a_plugin_of_version_0_1_still_runs():
    with pytest.warns(FutureWarning, match="Halves: the base class of density policies is now DensityPolicy"):

        class Halves(FullDensity):
            def balance(self, present):
                return present / 2

    policy = Halves(config(), 2)
    assert not policy.stays_full and policy.decides_after(3) and policy.needs == frozenset()
    assert policy.decide(None, None).density_pct.tolist() == [50, 50]

    class RecoveringHalves(Recovery, Halves):
        pass

    assert RecoveringHalves.needs == Recovery.needs and not RecoveringHalves.stays_full
    assert not RecoveringHalves.in_cohorts and RecoveringHalves(config(), 2).decides_after(3)
    with pytest.warns(FutureWarning, match="needs = frozenset"):

        class Looks(BalancedDensity):
            recovers = True

            def recover(self, client_accuracy):
                return client_accuracy < 0.5

    assert Looks.needs == {"client_accuracy"} and Looks.recovers
    with pytest.warns(FutureWarning, match="in an Evidence"):
        decision = Looks(config(), 2).decide(np.array([0.4, 0.6]), None)
    assert decision.triggered.tolist() == [True, False]


def test_a_subclass_stays_full_only_if_it_says_so():
    class StaysFull(DensityPolicy):
        stays_full = True

    class Halves(StaysFull):
        def balance(self, present):
            return present / 2

    class WrongHalves(Halves):
        stays_full = True

    assert StaysFull.stays_full and not StaysFull(config(), 2).decides_after(3)
    assert not Halves.stays_full and Halves(config(), 2).decide().density_pct.tolist() == [50, 50]
    with pytest.raises(UserError, match="WrongHalves.balance gave 0.5; allowed: 1 for every client, because its class"):
        WrongHalves(config(), 2).decide()


def test_a_plugin_that_asks_for_something_else_is_refused():
    known = "client_accuracy, client_loss, client_score, server_accuracy, server_score, train_loss"
    with pytest.raises(UserError, match=f"needs are among {known}, not .'age'"):
        find_density("tests.density.test_policy:AsksForAge")


class AsksForAge(DensityPolicy):
    needs = frozenset({"age"})


def test_recovery_raises_the_minimum_step_by_step_until_one():
    """Eq. 5: each time a client stops improving, rho_min = min(rho + delta_rho, 1); then line 22."""
    policy = make_density(config(patience=1), 2)
    observe(policy, [10, 40])
    assert policy.decide(Evidence(np.array([0.5, 0.5]), server_accuracy=0.5)).density_pct.tolist() == [100, 25]
    seen, stops, fired = [], [], []
    accuracy = 0.9
    for _ in range(12):
        observe(policy, [10, 40 * policy.density_pct[1] / 100])
        accuracy -= 0.01
        decision = policy.decide(Evidence(np.array([accuracy, accuracy]), server_accuracy=accuracy))
        seen.append(int(decision.density_pct[1]))
        stops.append(decision.stop)
        fired.append(decision.triggered.tolist())
    # Every second evaluation fires (after a trigger the next one is the new best); the first here improves on .5.
    assert seen == [25, 45, 45, 65, 65, 85, 85, 100, 100, 100, 100, 100]
    assert [i for i, stop in enumerate(stops) if stop] == [9, 11]  # server fires at odd i; all densities 1 before i = 9
    assert not any(client0 for client0, _ in fired)  # client 0 is at density 1: nothing to recover
    assert [client1 for _, client1 in fired] == [i in (1, 3, 5, 7) for i in range(12)]
    assert decision.min_densities.tolist() == [0.05, 1.0]


def test_recovery_follows_a_metric_of_which_less_is_better():
    """Perplexities fall at both clients and then stand still at client 1: only that one recovers, in the metric's unit.

    Scores are minus the perplexities. With min_delta = 2 the step from 40 to 39 is none.
    """
    policy = make_density(config(patience=1, min_delta=2.0), 2)
    observe(policy, [10, 40])
    perplexities = [(90.0, 80.0), (70.0, 60.0), (50.0, 40.0), (30.0, 39.0), (20.0, 38.0), (10.0, 41.0)]
    fired, stops = [], []
    for pair in perplexities:
        scores = -np.array(pair)
        decision = policy.decide(Evidence(np.array([0.5, 0.5]), client_score=scores, server_score=scores[1]))
        fired.append(decision.triggered.tolist())
        stops.append(decision.stop)
    # 39 fires against 40; 38 is the new best; 41 fires against it
    assert fired == [[False, k in (3, 5)] for k in range(6)]
    assert decision.density_pct.tolist() == [100, 65] and stops == [False] * 6


def test_the_stop_rule_follows_the_servers_score():
    policy = make_density(config(patience=1), 1)
    stops = [policy.decide(Evidence(server_accuracy=0.1, server_score=-p)).stop for p in (90.0, 80.0, 81.0)]
    assert stops == [False, False, True]  # the accuracy stands still, and nobody asks for it


def test_recovered_minimum_survives_the_time_balance():
    policy = make_density(config(patience=1), 2)
    observe(policy, [10, 100])
    policy.decide(Evidence(np.array([0.5, 0.5])))
    assert policy.decide(Evidence(np.array([0.6, 0.4]))).density_pct.tolist() == [100, 30]
    for _ in range(3):  # still slow, still 30 %
        observe(policy, [10, 30])
        assert policy.decide().density_pct.tolist() == [100, 30]


def test_empty_slots_do_not_count():
    policy = make_density(config(patience=1), 2)
    observe(policy, [10, 100])
    accuracies = (np.nan, np.nan, 0.4, np.nan, 0.3)
    seen = [policy.decide(Evidence(np.array([0.5, accuracy]))).triggered[1] for accuracy in accuracies]
    assert seen == [False, False, False, False, True]
    assert policy.density_pct.tolist() == [100, 30]


@pytest.mark.parametrize("name", ["full", "time_balance", "recovery"])
@pytest.mark.parametrize("rule", ["normalised", "damped", "literal"])
def test_resume_is_exact(name, rule):
    rng = np.random.default_rng(0)
    policy = make_density(config(name=name, rule=rule, patience=2), 4)
    for step in range(30):
        times = [None if rng.random() < 0.3 else float(rng.uniform(5, 50)) for _ in range(4)]
        accuracy = rng.random(4)
        accuracy[rng.random(4) < 0.2] = np.nan
        twin = make_density(config(name=name, rule=rule, patience=2), 4)
        twin.from_state(json.loads(json.dumps(policy.to_state(), allow_nan=False)))
        observe(policy, times)
        observe(twin, times)
        if step % 3 == 2:
            evidence = Evidence(accuracy, server_accuracy=accuracy[0])
            one, two = policy.decide(evidence), twin.decide(evidence)
            for field in ("density_pct", "min_densities", "mean_times", "triggered", "stop"):
                np.testing.assert_array_equal(getattr(one, field), getattr(two, field))
        assert policy.to_state() == twin.to_state()


def test_percents_cannot_be_changed_from_outside():
    policy = make_density(config(), 2)
    policy.density_pct[0] = 1
    assert policy.density_pct.tolist() == [100, 100]


@pytest.mark.parametrize(
    "changes", [{"name": "other"}, {"min_density": 0.0}, {"min_density": 1.5}, {"delta_rho": 0.0}, {"patience": 0}]
)
def test_policies_refuse(changes):
    with pytest.raises(UserError, match=f"density.{next(iter(changes))}"):
        make_density(config(**changes), 2)


def test_running_percents_follow_each_dispatch():
    running = RunningDensities()

    def window(dispatches, arrivals):
        return Window(
            1, 0.0, 1.0,
            tuple(Dispatch(client, index, 0, 0.0, False, 0) for client, index in dispatches),
            tuple(arrival(client, 1.0, index) for client, index in arrivals),
            0, 0, 0, np.zeros(2),
        )  # fmt: skip

    assert running.take(window([(0, 0), (1, 0), (0, 1)], [(0, 0)]), np.array([100, 100])) == [100]
    # 0's second and 1's first were sent at 100; 0's third at 40.
    assert running.take(window([(0, 2)], [(1, 0), (0, 1), (0, 2)]), np.array([40, 30])) == [100, 100, 40]


def test_a_policy_with_the_former_decide_is_refused():
    with pytest.raises(TypeError, match="Old.decide is given one Evidence, not client_accuracy, server_accuracy"):

        class Old(DensityPolicy):
            def decide(self, client_accuracy, server_accuracy):
                return super().decide(client_accuracy, server_accuracy)


def test_the_former_name_of_a_decisions_densities_is_known():
    decision = DensityPolicy(config(), 2).decide()
    with pytest.warns(FutureWarning, match="density_pct"):
        assert decision.percents.tolist() == decision.density_pct.tolist()

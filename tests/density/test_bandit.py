"""FedMP's bandits: E-UCB beside a slow one, rewards worked out by hand, the stationary toy, states, bad settings."""

import json
import math

import bandit_toy
import numpy as np
import pytest
from marked import slow_except
from slow_bandit import SlowAgent

from prfl_jax.clock import Arrival
from prfl_jax.config import default_config
from prfl_jax.config.canonical import assign, to_dict
from prfl_jax.config.validate import validate
from prfl_jax.density import SCALES, Evidence, make_density
from prfl_jax.density.eucb import Agent, Settings
from prfl_jax.system.errors import UserError


def settings(theta=0.1, discount=0.9, exploration=0.3, scale="mean"):
    return Settings(theta, discount, exploration, SCALES.find(scale))


# --- one agent ---


@pytest.mark.parametrize("seed", slow_except(range(6), 0, 1))
@pytest.mark.parametrize("scale", ["mean", "largest", "unscaled"])
def test_agent_equals_a_slow_one_to_the_bit(seed, scale):
    rng = np.random.default_rng(seed)
    theta, discount, exploration = rng.uniform(0.01, 0.3), rng.uniform(0.8, 1.0), rng.uniform(0.0, 1.0)
    highest = int(rng.integers(1, 100))
    agent = Agent(seed, 3, settings(theta, discount, exploration, scale), highest)
    slow = SlowAgent(seed, 3, theta, discount, exploration, scale, highest)
    for _ in range(60):
        assert agent.upper_bounds() == slow.bounds()
        ratio = agent.draw()
        assert ratio == slow.draw() and 0 <= ratio <= highest
        assert agent.starts == [low for low, _ in slow.regions()]
        if rng.random() < 0.9:  # a round may fail: no reward
            reward = float(rng.normal(0.3, 0.5) if scale == "unscaled" else rng.exponential())
            agent.observe(ratio, reward)
            slow.observe(ratio, reward)


def test_bounds_by_hand():
    """N and mean by Eq. 9, the padding of Eq. 10 with max(n, 1), in units of the largest reward."""
    agent = Agent(0, 0, settings(discount=0.5, exploration=2.0, scale="largest"), 95)
    agent.starts = [0, 40, 80]
    agent.observe(10, 1.0)
    agent.observe(60, 3.0)
    assert agent.upper_bounds() == [1.0 / 3.0, 1.0, math.inf]  # n = .25 + .5, so the logarithm is 0
    for _ in range(3):
        agent.observe(0, 2.0)
    # weights .5, .25 and .125 of ratio 0, 1/32 of 10, 1/16 of 60
    counts, sums = [29 / 32, 1 / 16], [57 / 32, 3 / 16]
    padding = [2.0 * math.sqrt(2.0 * math.log(max(sum(counts), 1.0)) / count) for count in counts]
    expected = [total / count / 3.0 + c for total, count, c in zip(sums, counts, padding, strict=True)]
    assert agent.upper_bounds()[:2] == pytest.approx(expected, rel=1e-14)


def test_discounts_are_powers_of_lambda():
    rng, discount = np.random.default_rng(0), 0.97
    agent = Agent(0, 0, settings(discount=discount, exploration=1.0, scale="unscaled"), 95)
    agent.starts = [0, 20, 50]
    ratios, rewards = rng.integers(0, 96, 200), rng.exponential(size=200)
    for ratio, reward in zip(ratios.tolist(), rewards.tolist(), strict=True):
        agent.observe(ratio, reward)
    weights = discount ** np.arange(200, 0, -1.0)  # lambda^(k - s), s = 1 ... k - 1
    region = np.digitize(ratios, [20, 50])
    count = np.array([weights[region == j].sum() for j in range(3)])
    mean = np.array([(weights * rewards)[region == j].sum() for j in range(3)]) / count
    expected = mean + np.sqrt(2 * np.log(count.sum()) / count)
    np.testing.assert_allclose(agent.upper_bounds(), expected, rtol=1e-12)


def test_unseen_regions_come_first_then_the_best():
    agent = Agent(5, 0, settings(theta=0.4, exploration=0.0), 95)
    agent.starts = [0, 30, 60]  # none of them is wider than theta: no more splits
    agent.observe(40, 9.0)
    drawn = []
    for reward in (1.0, 1.0, 9.0, 9.0):
        drawn.append(agent.draw())
        agent.observe(drawn[-1], reward)
    regions = np.digitize(drawn, [30, 60]).tolist()
    assert sorted(regions[:2]) == [0, 2] and regions[2:] == [1, 1]
    assert agent.starts == [0, 30, 60]


def test_equal_bounds_break_by_a_seeded_draw():
    lower = 0
    for source in range(40):
        agent = Agent(0, source, settings(theta=0.9), 95)
        agent.starts = [0, 10]  # both unseen: each as likely, whatever its width
        lower += agent.draw() < 10
    assert 10 <= lower <= 30


# --- rewards ---


def policy(name="bandit", clients=3, seed=0, **changes):
    config = default_config().density
    with config.ignore_type():
        config.update({"name": name, **changes})
    return make_density(config, clients, seed=seed)


def arrive(chosen, times, losses):
    """A window with an arrival of each client that has a time; what was decided after it."""
    there = sorted((t, client) for client, t in times.items())
    arrivals = [Arrival(client, 0, 0, 5.0, 5.0, 5.0, 5.0 + t, 0) for t, client in there]
    chosen.observe(arrivals, chosen.density_pct[[client for _, client in there]])
    found = np.full(len(chosen.density_pct), np.nan)
    for client, loss in losses.items():
        found[client] = loss
    return chosen.decide(Evidence(train_loss=found))


def after_one_round(name="bandit", **changes):
    """A policy whose three clients have had their first round, of loss 2."""
    chosen = policy(name, **changes)
    assert chosen.density_pct.tolist() == [100, 100, 100]
    first = arrive(chosen, {0: 10.0, 1: 20.0, 2: 30.0}, dict.fromkeys(range(3), 2.0))
    assert np.isnan(first.rewards).all()  # nothing to compare the first loss with
    return chosen


TIMES, LOSSES = {0: 10.0, 1: 12.0, 2: 20.0}, {0: 1.0, 1: 1.5, 2: 2.5}  # mean 14 s; one loss rises


def test_normalised_rewards_by_hand():
    decision = arrive(after_one_round(loss_change="own"), TIMES, LOSSES)
    expected = [0.5 / (4 / 14 + 0.05), 0.25 / (2 / 14 + 0.05), 0.0]
    assert decision.rewards.tolist() == pytest.approx(expected, rel=1e-12)


def test_literal_rewards_by_hand():
    decision = arrive(after_one_round("bandit_literal", gap_floor=0.2), TIMES, LOSSES)
    assert decision.rewards.tolist() == pytest.approx([1.0 / 4, 0.5 / 2.8, -0.5 / 6], rel=1e-12)


def test_the_mean_loss_counts_by_default():
    decision = arrive(after_one_round(), TIMES, LOSSES)
    gain = (2.0 - 5.0 / 3) / 2.0
    expected = [gain / (4 / 14 + 0.05), gain / (2 / 14 + 0.05), gain / (6 / 14 + 0.05)]
    assert decision.rewards.tolist() == pytest.approx(expected, rel=1e-12)


def test_one_ratio_for_all_by_its_round_time():
    chosen = after_one_round("bandit_uniform")
    assert len(set(chosen.density_pct.tolist())) == 1
    decision = arrive(chosen, TIMES, LOSSES)
    assert decision.rewards.tolist() == pytest.approx([(1 / 6) / 20.0] * 3, rel=1e-12)
    assert len(set(decision.density_pct.tolist())) == 1


def test_only_arrivals_observe_and_draw_anew():
    """Algorithm 2: the mean is over each client's last known time, those in flight keep their ratio."""
    chosen = after_one_round(loss_change="own")
    before = chosen.density_pct
    decision = arrive(chosen, {0: 4.0}, {0: 1.0})  # the others took 20 and 30 s: mean 18 s
    assert decision.rewards[0] == pytest.approx(0.5 / (14 / 18 + 0.05), rel=1e-12)
    assert np.isnan(decision.rewards[1:]).all() and decision.density_pct[1:].tolist() == before[1:].tolist()
    agents = dict(chosen.to_state()["agents"])
    assert [agents[client]["draws"] for client in range(3)] == [2, 1, 1]


def test_late_arrivals_under_an_earlier_ratio_count_for_that():
    chosen = after_one_round("bandit_uniform")
    earlier = chosen.density_pct[0]
    arrive(chosen, {0: 4.0}, {0: 1.0})
    now = chosen.density_pct[0]
    assert now != earlier
    arrivals = [Arrival(client, 0, 0, 0.0, 0.0, 0.0, t, 0) for client, t in ((0, 3.0), (1, 25.0))]
    chosen.observe(arrivals, [now, earlier])
    decision = chosen.decide(Evidence(train_loss=np.array([0.5, 1.0, np.nan])))
    assert decision.rewards[:2].tolist() == pytest.approx([0.5 / 3.0, 0.5 / 25.0], rel=1e-12)


def test_decides_after_windows_with_arrivals_alone():
    chosen = after_one_round()
    assert not chosen.decides_after(2)
    chosen.observe([Arrival(0, 0, 0, 0.0, 0.0, 0.0, 3.0, 0)], [100])
    assert chosen.decides_after(2) and chosen.decides_after(3)


def test_clock_alone_learns_from_times():
    """Without losses each arrival counts as one whose loss fell to 0."""
    chosen = policy()
    for _ in range(2):
        chosen.observe([Arrival(c, 0, 0, 0.0, 0.0, 0.0, t, 0) for c, t in TIMES.items()], chosen.density_pct)
        decision = chosen.decide()
        assert decision.rewards.tolist() == pytest.approx([1 / (gap / 14 + 0.05) for gap in (4, 2, 6)], rel=1e-12)


def test_ratios_leave_the_minimum_density():
    chosen, seen = policy(clients=50, min_density=0.4), set()
    for _ in range(8):
        decision = arrive(chosen, {c: 1.0 + c for c in range(50)}, {c: 1.0 for c in range(50)})
        seen |= set(decision.density_pct.tolist())
    assert min(seen) == 40 and max(seen) == 100


# --- the stationary toy ---


LARGEST = {"name": "bandit", "reward_scale": "largest", "discount": 0.99, "exploration": 0.05}
CHOICES = {
    "bandit": {"name": "bandit"},
    "bandit, own loss": {"name": "bandit", "loss_change": "own"},
    "largest reward, theta .05": {**LARGEST, "theta": 0.05},
    "largest reward, theta .2": {**LARGEST, "theta": 0.2},
    "bandit_literal": {"name": "bandit_literal"},
}


def played(noise, title):
    found = bandit_toy.compare(range(3), CHOICES, noise)
    print(f"\n{title}: shares of the equaliser's reward | round time, three seeds\n{bandit_toy.table(found)}")
    return found


@pytest.fixture(scope="module")
def toy():
    return played(0.0, "stationary")


def test_default_learns_on_the_toy(toy):
    for own, best in zip(toy["bandit"], toy["equaliser"], strict=True):
        assert own.reward >= 0.6 * best.reward and own.round_s <= 1.5 * best.round_s
        assert own.slow > own.fast + 0.3
    shares = [own.reward / best.reward for own, best in zip(toy["bandit"], toy["equaliser"], strict=True)]
    assert np.mean(shares) >= 0.8


def test_literal_rule_does_not_learn_on_the_toy(toy):
    for own, best, drawn in zip(toy["bandit_literal"], toy["equaliser"], toy["uniform draws"], strict=True):
        assert own.reward < 0.4 * best.reward and abs(own.reward - drawn.reward) < 0.1 * best.reward
        assert abs(own.slow - own.fast) < 0.1


def test_mean_reward_as_unit_learns_more_than_the_largest(toy):
    default = np.mean([one.reward for one in toy["bandit"]])
    for name in ("largest reward, theta .05", "largest reward, theta .2"):
        assert default > 1.05 * np.mean([one.reward for one in toy[name]])


def test_default_learns_also_from_noisy_losses():
    """Losses reported with a deviation of .3, and falling by less and less: half of the rewards are 0."""
    found = played(0.3, "noisy")
    for own, largest, best in zip(found["bandit"], found["largest reward, theta .05"], found["equaliser"], strict=True):
        assert own.reward >= 0.5 * best.reward and own.round_s <= 1.5 * best.round_s
        assert own.slow > own.fast + 0.2
        assert largest.reward < 0.5 * best.reward  # its unit is an outlier


# --- states and settings ---


@pytest.mark.parametrize("name", ["bandit", "bandit_literal", "bandit_uniform"])
def test_resumed_in_the_middle_of_a_window_it_decides_alike(name):
    def window(chosen, k):
        rng = np.random.default_rng(k)
        there = [client for client in range(4) if rng.random() < 0.6]
        arrivals = [Arrival(c, 0, 0, 0.0, 0.0, 0.0, float(rng.uniform(1, 9)), 0) for c in there]
        chosen.observe(arrivals, chosen.density_pct[there])
        return Evidence(train_loss=np.where(np.isin(range(4), there), rng.uniform(0.5, 2.0, 4), np.nan))

    def rounds(resumed_at):
        chosen, found = policy(name, clients=4, seed=9), []
        for k in range(40):
            evidence = window(chosen, k)
            if k == resumed_at:
                saved = json.loads(json.dumps(chosen.to_state(), allow_nan=False))
                chosen = policy(name, clients=4, seed=9).from_state(saved)
            decision = chosen.decide(evidence)
            found.append((decision.density_pct.tolist(), decision.rewards.tobytes()))
        return found, chosen.to_state()

    assert rounds(17) == rounds(None)


def test_draws_follow_from_the_seed():
    def ratios(seed, source):
        agent = Agent(seed, source, settings(), 95)
        return [agent.draw() for _ in range(5)]

    assert ratios(1, 2) == ratios(1, 2)
    assert len({tuple(ratios(seed, source)) for seed in range(3) for source in range(3)}) == 9


def run_config(name="bandit", **changes):
    c = default_config()
    for key, value in {"density.name": name, **{k.replace("__", "."): v for k, v in changes.items()}}.items():
        assign(c, key, value)
    return c


@pytest.mark.parametrize("name", ["bandit", "bandit_literal", "bandit_uniform"])
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"density__min_density": 1.0}, "density.min_density=1.0: allowed is below 1 with density.name"),
        (
            {"privacy__noise_multiplier": 1.0, "aggregation__clip_norm": 1.0, "aggregation__client_weight": "uniform"},
            "privacy.noise_multiplier=1.0: allowed is 0 with density.name",
        ),
        (
            {"aggregation__name": "median", "submodel__importance": "weight"},
            "aggregation.name='median': allowed is a mean",
        ),
    ],
)
def test_refused_beside_other_settings(name, changes, text):
    with pytest.raises(UserError) as caught:
        validate(run_config(name, **changes))
    assert text in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [("theta", 0.0, "(0, 1)"), ("theta", 1.0, "(0, 1)"), ("discount", 1.5, "(0, 1]"), ("discount", 0.0, "(0, 1]")],
)
def test_settings_out_of_range_are_refused(key, value, allowed):
    with pytest.raises(UserError) as caught:
        assign(default_config(), f"density.{key}", value)
    assert str(caught.value) == f"config.density.{key}={value}: allowed is a finite number in {allowed} or None"
    with pytest.raises(UserError, match=f"density.{key}"):  # a policy made without a config
        policy(**{key: value})


def test_settings_in_force_are_in_the_report():
    found = to_dict(run_config())["density"]
    keys = ("theta", "discount", "exploration", "reward_scale")
    assert [found[key] for key in keys] == [0.1, 0.998, 0.4, "mean"]
    literal = to_dict(run_config("bandit_literal", density__theta=0.02))["density"]
    assert [literal[key] for key in keys] == [0.02, 0.95, 1.0, "unscaled"]
    assert [to_dict(default_config())["density"][key] for key in keys] == [None] * 4

"""FedMP's workers: who is where, at what speed, and how long a dense round of AlexNet takes there."""

import functools

import pytest

from prfl_jax import strategies
from prfl_jax.config.defaults import default_config
from prfl_jax.config.validate import validate
from prfl_jax.engine.method import resolve
from prfl_jax.runtime.clock_only import run_clock
from prfl_jax.studies.fedmp import workers
from prfl_jax.system.errors import UserError


def alexnet(scenario, number=10, **more):
    """Syn-FL with AlexNet: a pass over 5,000 samples a round, no chance in the links."""
    c = strategies.use(default_config(), "fedavg")
    c.data.name, c.model.name, c.model.classes = "cifar10", "alexnet", 10
    c.data.normalize = "cifar10"
    c.local.batch_size, c.local.steps = 50, 100
    c.clients.sigma = c.server.sigma = 0.0
    workers.set_workers(c, scenario, number, **more)
    validate(c)
    return c


@functools.cache
def size():
    found = resolve(alexnet("low"), (32, 32, 3), 10).size
    assert found.total * found.bytes_per_value / 1e6 == pytest.approx(93.0, rel=0.02)  # MB
    return found


def round_s(config, rounds=3):
    return run_clock(config, rounds, size())["simulated_s"] / rounds


@pytest.mark.parametrize(("scenario", "seconds"), [("low", 36.9), ("medium", 80.5), ("high", 117.6)])
def test_dense_rounds_of_alexnet(scenario, seconds):
    assert round_s(alexnet(scenario)) == pytest.approx(seconds, rel=0.01)


def test_medium_has_the_papers_order_of_magnitude():
    assert 200 < 24_017 / round_s(alexnet("medium")) < 500  # rounds


@pytest.mark.parametrize("number", [10, 15, 30])
def test_clusters_keep_their_shares(number):
    for scenario, of_ten in workers.SCENARIOS.items():
        found = workers.in_clusters(scenario, number)
        assert len(found) == number and found == sorted(found)
        for cluster, count in of_ten.items():
            assert abs(found.count(cluster) - count * number / 10) < 1


def test_speeds_by_mode_and_place():
    c = alexnet("high")
    relative = [speed / 1.2e11 for speed in c.clients.flop_s]
    assert relative == pytest.approx([1, 0.86, 1, 0.86, 0.86, 0.86, 0.86, 0.65, 0.86, 0.65])
    assert c.clients.up_mb_s == pytest.approx([7.5] * 3 + [2.25] * 3 + [1.5] * 4)
    assert c.clients.down_mb_s == pytest.approx([15.0] * 3 + [4.5] * 3 + [3.0] * 4)
    cpu = alexnet("high", speeds=workers.CPU_SPEEDS)
    assert cpu.clients.flop_s[-1] == pytest.approx(0.4 * 1.2e11)


def test_a_part_of_a_pass_takes_its_whole_time():
    part = alexnet("medium", pass_share=0.05)
    part.local.steps = 5
    assert round_s(part) == pytest.approx(round_s(alexnet("medium")), rel=1e-6)


@pytest.mark.parametrize(("scenario", "number", "text"), [("High", 10, "low, medium, high"), ("high", 0, "at least 1")])
def test_unknown_scenarios_are_refused(scenario, number, text):
    with pytest.raises(UserError, match=text):
        workers.set_workers(default_config(), scenario, number)

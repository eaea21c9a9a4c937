"""FedProx's own step counts: as many steps as fit the time of the median client, from 1 to all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from prfl_jax.config.canonical import canonical, config_hash
from prfl_jax.local import LocalInput, LocalSettings, LocalTask
from prfl_jax.local.sgd import sgd_round
from prfl_jax.local.work import MOST_UNROLLED, Batches
from prfl_jax.models import make_loss
from prfl_jax.runtime.clock_only import run_clock
from prfl_jax.runtime.round_costs import own_steps


@pytest.mark.parametrize(
    ("seconds", "steps", "want"),
    [
        ([1, 2, 3, 4, 10], 6, [6, 6, 6, 4, 1]),  # the median is 3: 6 * 3 / 4 = 4.5, 6 * 3 / 10 = 1.8
        ([1, 2, 4, 8], 4, [4, 4, 3, 1]),  # the median is 3
        ([3, 3, 9], 3, [3, 3, 1]),  # a third of the steps fits exactly
        ([0.1, 0.3, 0.3 * 7], 7, [7, 7, 1]),
        ([0, 0, 0], 5, [5, 5, 5]),  # computing takes no time
        ([0, 0, 1], 5, [5, 5, 1]),
        ([5], 3, [3]),
    ],
)
def test_steps_that_fit(seconds, steps, want):
    assert own_steps(np.array(seconds, float), steps).tolist() == want


@pytest.mark.parametrize("steps", [6, MOST_UNROLLED + 1])
def test_a_client_with_fewer_steps_stops_there(steps):
    """It ends where a round of so many steps ends, and its loss is their mean."""
    simulation = tiny.simulation("fedavg")
    method = simulation.method
    params = method.model.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(steps, 5, 28, 28, 1)), jnp.float32)
    y = jnp.asarray(rng.integers(0, 10, (steps, 5)), jnp.int32)

    def run(of_round, own):
        settings = LocalSettings(steps=of_round, batch_size=5, momentum=0.9, prox_mu=0.1)
        task = LocalTask(method.model, make_loss("sigmoid"), method.layout, settings)
        batches = Batches(one=lambda k: (x[k], y[k]), all=lambda: (x[:of_round], y[:of_round]))
        given = LocalInput(params, (), batches, jnp.float32(0.1), jax.random.key(1), steps=own)
        return jax.jit(lambda given=given: sgd_round(task, given))()

    for own in (1, 4):
        got, want = run(steps, jnp.int32(own)), run(own, None)
        tiny.close(got.params, want.params, 1e-6)
        assert float(got.loss) == pytest.approx(float(want.loss), rel=1e-6)
    tiny.close(run(steps, jnp.int32(steps)).params, run(steps, None).params, 1e-6)


def test_the_clock_charges_the_steps_that_are_done():
    """Client 3 is 27 times slower than the median; its time is that of one step of four."""
    speeds = dict(clients__flop_s=(8e5, 8e5, 8e5, 3e4), local__steps=4)
    whole, own = (tiny.simulation(name, **speeds).costs(np.full(4, 100)) for name in ("fedavg", "fedprox"))
    np.testing.assert_allclose(own.compute_s / whole.compute_s, [1, 1, 1, 0.25])
    assert own.steps.tolist() == [4, 4, 4, 1] and not whole.steps.any()
    assert own.up_bytes.tolist() == whole.up_bytes.tolist()
    config = tiny.config("fedprox", **speeds)
    alone = run_clock(config, 3, tiny.simulation("fedprox", **speeds).method.size)
    ran = tiny.run("fedprox", rounds=3, **speeds)
    assert alone["simulated_s"] == pytest.approx(ran.report["simulated_s"])


def test_mu_in_force_is_hashed_and_reported():
    unset, set_ = tiny.config("fedprox"), tiny.config("fedprox", local__prox_mu=0.01)
    assert canonical(unset)["local.prox_mu"] == 0.01 and config_hash(unset) == config_hash(set_)
    assert canonical(tiny.config("fedavg"))["local.prox_mu"] == 0.0
    assert config_hash(tiny.config("fedprox", local__prox_mu=0.02)) != config_hash(unset)

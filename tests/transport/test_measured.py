"""Seconds of computing by `clients.step_s` and `clients.weight_s`: by hand, and by networks really cut out."""

import numpy as np
import pytest
import tiny

from prfl_jax.submodel.size_from_config import model_size_from_config
from prfl_jax.system.errors import UserError

STEP_S, WEIGHT_S = (0.5, 0.25, 0.5, 1.0), 1e-4
ALL = 784 * 12 + 12 * 10  # weights of `tiny.TwoLayers`


def seconds(strategy, density_pct=(100, 100, 100, 100), **changes):
    simulation = tiny.simulation(strategy, clients__step_s=STEP_S, **changes)
    return simulation.costs(np.array(density_pct)).compute_s


@pytest.mark.parametrize("strategy", ["fedavg", "prfl"])
def test_a_full_model(strategy):
    found = seconds(strategy, clients__weight_s=(WEIGHT_S,))
    np.testing.assert_allclose(found, 2 * (np.array(STEP_S) + ALL * WEIGHT_S))  # two local steps


def test_a_number_for_each_kernel_and_flop_beside_them():
    each = (1e-4, 2e-3)
    flop_s = seconds("fedavg", clients__weight_s=(), clients__flop_s=(1e6,)) - 2 * np.array(STEP_S)
    found = seconds("fedavg", clients__weight_s=each, clients__flop_s=(1e6,))
    np.testing.assert_allclose(found, flop_s + 2 * (np.array(STEP_S) + 784 * 12 * 1e-4 + 120 * 2e-3))


def test_of_nested_weights_each_layer_counts_by_the_density():
    found = seconds("prfl", (50, 100, 25, 10), clients__weight_s=(WEIGHT_S, WEIGHT_S))
    size = tiny.simulation("prfl").method.size
    held = np.array([size.count(percent) for percent in (50, 100, 25, 10)])
    np.testing.assert_allclose(found, 2 * (np.array(STEP_S) + held * WEIGHT_S))


@pytest.mark.parametrize("strategy", ["heterofl", "fedmp"])
def test_channels_count_as_the_small_networks_kernels(strategy):
    """Conv2 at a tenth of its width has 3 and 6 filters and 205 units; half of them are 2, 3 and 103."""
    each = (1e-3, 1e-4, 1e-5, 1e-6)
    network = dict(model__name="conv2", model__width=0.1)
    found = seconds(strategy, (50,) * 4, clients__weight_s=each, **network)
    kernels = np.array([25 * 2, 25 * 2 * 3, 49 * 3 * 103, 103 * 10])
    np.testing.assert_allclose(found, 2 * (np.array(STEP_S) + kernels @ np.array(each)))
    config = tiny.config(strategy, **network)
    assert model_size_from_config(config).held_kernels(50) == tuple(kernels)


def test_own_masks_count_what_they_hold():
    ran = tiny.run("layerwise", rounds=6, clients__weight_s=(WEIGHT_S,), pruning__initial_rounds=0, pruning__interval=2)
    first, *_, last = ran.of("window")
    np.testing.assert_allclose(first["train_s"], 2 * ALL * WEIGHT_S)
    shares = ran.of("masks")[-1]["clients"]
    size = ran.experiment.simulation.method.size
    held = np.array([round(share * size.total) - size.fixed for share in shares])
    assert (held < ALL).all()
    np.testing.assert_allclose(last["train_s"], 2 * held[last["arrivals"]] * WEIGHT_S)


def test_a_wrong_number_of_kernels_is_refused():
    with pytest.raises(
        UserError, match=r"config.clients.weight_s=\(1e-06, 1e-06, 1e-06\): allowed is .* 2, in the order"
    ):
        seconds("fedavg", clients__weight_s=(1e-6,) * 3)

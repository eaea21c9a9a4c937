"""Models with running statistics in whole runs: averaged like weights, resumed to the bit, refused where misleading."""

import flax.linen as nn
import jax
import numpy as np
import pytest
import tiny

from prfl_jax.data.device import draw_batches
from prfl_jax.models.variables import STATE
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.system.errors import UserError
from prfl_jax.system.signals import Interrupted

MOMENTUM = 0.9


class Normed(nn.Module):
    """A user's own module whose batch norm sees the images themselves."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        x = nn.BatchNorm(use_running_average=not train, momentum=MOMENTUM, name="norm")(x)
        return nn.Dense(self.classes)(nn.relu(nn.Dense(12)(x)))


class NormedInside(nn.Module):
    """A user's own module whose batch norm sees what a layer makes of the images."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.Dense(12)(x.reshape(x.shape[0], -1))
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.5)(x))
        return nn.Dense(self.classes)(x)


MODEL = f"{__file__}:Normed"


def test_statistics_are_averaged_like_weights(tmp_path):
    """FedAvg of one window: the mean of what each client's batches make of the first statistics, in float64."""
    config = tiny.config("fedavg", model__name=MODEL, rounds=1)
    experiment = Experiment(config)
    simulation = experiment.simulation
    data, local = simulation.device_data(), config.local
    expected = []
    for client in range(config.clients.number):
        x, _ = draw_batches(
            data, simulation.keys.data, client, 0, local.steps, local.batch_size, config.data.normalize, "none"
        )
        mean, var = 0.0, 1.0
        for batch in np.asarray(x, np.float64).reshape(local.steps, local.batch_size, -1):
            mean = MOMENTUM * mean + (1 - MOMENTUM) * batch.mean(axis=0)
            var = MOMENTUM * var + (1 - MOMENTUM) * batch.var(axis=0)
        expected.append((mean, var))
    mean, var = (np.mean([one[k] for one in expected], axis=0) for k in range(2))
    found = experiment.run(tmp_path / "run", progress=False).params[STATE]["batch_stats"]["norm"]
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["var"], var, rtol=1e-4, atol=1e-6)


@pytest.mark.slow  # tests/runtime/test_norms_of_clients.py has a fast one
@pytest.mark.parametrize("strategy", ["prfl", "fedasyn"])
def test_a_run_learns_and_goes_on_to_the_bit(tmp_path, strategy):
    config = tiny.config(strategy, model__name=f"{__file__}:NormedInside", rounds=20)
    whole = Experiment(config).run(tmp_path / "whole", progress=False)
    assert whole.report["final"]["accuracy"] > 0.3
    stopped = Experiment(config)
    with pytest.raises(Interrupted):
        stopped.run(tmp_path / "stopped", progress=False, guard=tiny.StopAt(12))
    again = Experiment(config).run(tmp_path / "stopped", progress=False)
    tiny.same(again.params, whole.params)
    assert again.report["final"] == whole.report["final"]


@pytest.mark.parametrize(
    ("strategy", "changes", "said"),
    [
        ("fedbuff", {}, "aggregation.name='fedbuff': adds updates"),
        (
            "prfl",
            dict(attack__name="sign_flip", attack__number=1),
            "attack.name='sign_flip': allowed with a model without",
        ),
        ("fedavg", dict(aggregation__clip_norm=1.0), "aggregation.clip_norm=1.0: allowed with a model without"),
    ],
)
def test_where_statistics_mislead_they_are_refused(strategy, changes, said):
    with pytest.raises(UserError, match=said) as caught:
        Experiment(tiny.config(strategy, model__name=MODEL, **changes))
    assert "\n" not in str(caught.value)

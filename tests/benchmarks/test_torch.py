"""The PyTorch loop computes what ours computes, and its process answers; skipped where PyTorch is not installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prfl_jax.benchmarks.torch_process import TorchProcess, TorchUnavailable
from prfl_jax.benchmarks.workload import CLASSES, INPUT_SHAPE, Workload
from prfl_jax.engine.method import resolve
from prfl_jax.local import LocalSettings
from prfl_jax.local.sgd import make_local_round
from prfl_jax.models.build import flat_paths

torch = pytest.importorskip("torch")

WORK = Workload(clients=2, width=0.1, images=12, steps=2, batch_size=5)
OPTIONS = {"steps": 2, "batch_size": 5, "lr": 0.25, "threads": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def method():
    return resolve(WORK.config("fedavg"), INPUT_SHAPE, CLASSES)


def arrays(params):
    return {key: np.asarray(leaf) for key, leaf in flat_paths(params).items()}


def test_the_same_steps_give_the_same_model(method):
    from prfl_jax.benchmarks import torch_worker

    params = method.model.init(jax.random.key(0))
    data = WORK.host_data()
    rows = data["index"][0][:10].reshape(2, 5)
    x, y = data["x"][rows].astype(np.float32) / 255, data["y"][rows]
    ours = jax.jit(make_local_round(method.model, method.loss, method.layout, LocalSettings(2, 5)))(
        params, (), jnp.asarray(x), jnp.asarray(y), jnp.float32(0.25), jax.random.key(0)
    )
    clients = torch_worker.Clients(data, arrays(params), 2, 5, 0.25, "cpu")
    model = clients.models[0]
    model.load_state_dict(clients.sent[0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    losses = [
        float(torch_worker.train_step(
            model, optimizer, torch.from_numpy(x[s].transpose(0, 3, 1, 2).copy()),
            torch.from_numpy(y[s].astype(np.int64)), CLASSES,
        ))
        for s in range(2)
    ]  # fmt: skip
    assert float(ours.loss) == pytest.approx(np.mean(losses), rel=1e-4)
    before = torch_worker.state_dict(arrays(params))
    for key, want in torch_worker.state_dict(arrays(ours.params)).items():
        got, start = model.state_dict()[key].numpy(), before[key].numpy()
        moved = np.abs(want.numpy() - start).max()
        assert moved > 0
        np.testing.assert_allclose(got - start, want.numpy() - start, atol=2e-3 * moved)


def test_the_process_answers_and_tells_when_it_is_gone(method):
    params = arrays(method.model.init(jax.random.key(0)))
    with TorchProcess(WORK.host_data(), params, OPTIONS) as process:
        assert process.about == {"version": torch.__version__, "threads": 1, "device": "cpu"}
        assert 0 < process.round() < 60 and 0 < process.round() < 60
        process._process.kill()
        process._process.wait()
        with pytest.raises(TorchUnavailable, match="could not be run"):
            process.round()


def test_a_worker_that_cannot_start_says_why(method):
    params = arrays(method.model.init(jax.random.key(0)))
    with pytest.raises(TorchUnavailable, match="could not be run: .*unexpected keyword argument 'pace'"):
        TorchProcess(WORK.host_data(), params, {**OPTIONS, "pace": 1})

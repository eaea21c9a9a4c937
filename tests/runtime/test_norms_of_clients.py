"""`model.state` local and static: FedBN's own layers, and statistics recomputed, on clients of different brightness."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from marked import slow

from prfl_jax.engine.method import check_compared
from prfl_jax.models import client_model, load_model
from prfl_jax.models.variables import CLIENTS, STATE
from prfl_jax.report import read_metrics
from prfl_jax.runtime.batched_runs import run_batched
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.system.errors import UserError
from prfl_jax.system.signals import Interrupted

BRIGHTNESS = (0.2, 0.5, 0.8, 1.0)  # of each client's images
EACH, SIDE, CLASSES = 60, 6, 4


class Normed(nn.Module):
    """Batch norm of the images themselves, then two layers."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.8, name="norm")(x)
        x = nn.relu(nn.Dense(12, name="hidden")(x))
        return nn.Dense(self.classes, name="out")(x)


class AllNormed(nn.Module):
    """Its only weights are in the same module as its state."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        mean = self.variable("batch_stats", "mean", lambda: jnp.zeros(x.shape[1]))
        if train and not self.is_initializing():
            mean.value = 0.9 * mean.value + 0.1 * x.mean(axis=0)
        return (x - mean.value) @ self.param("w", nn.initializers.lecun_normal(), (x.shape[1], self.classes))


@pytest.fixture(scope="module")
def bright(tmp_path_factory):
    """A file of four writers, each with images of another brightness; test images are of all of them."""
    rng = np.random.default_rng(0)
    shapes = rng.integers(0, 255, (CLASSES, SIDE, SIDE))

    def draw(count, brightness):
        y = rng.integers(0, CLASSES, count)
        noisy = 0.6 * shapes[y] + 0.4 * rng.integers(0, 255, (count, SIDE, SIDE))
        return (brightness * noisy).astype(np.uint8), y

    train = [draw(EACH, level) for level in BRIGHTNESS]
    test = [draw(40, level) for level in BRIGHTNESS]
    path = tmp_path_factory.mktemp("bright") / "bright.npz"
    np.savez(
        path,
        x_train=np.concatenate([x for x, _ in train]),
        y_train=np.concatenate([y for _, y in train]),
        x_test=np.concatenate([x for x, _ in test]),
        y_test=np.concatenate([y for _, y in test]),
        writer_train=np.repeat(np.arange(4), EACH),
        writer_test=np.repeat(np.arange(4), 40),
    )
    return str(path)


def config(bright, state, strategy="fedavg", **changes):
    settings = dict(
        rounds=10,
        data__name=bright,
        data__partition="writer",
        data__writers=4,
        data__train_limit=None,
        data__test_limit=None,
        data__holdout_fraction=0.1 if strategy == "prfl" else 0.0,
        model__name=f"{__file__}:Normed",
        model__state=state,
        model__size_mb=None,
        local__steps=4,
        local__lr=0.5,
        eval__batch_size=40,
        model__loss="softmax",
    )
    return tiny.config(strategy, **{**settings, **changes})


@pytest.fixture(scope="module")
def runs(bright, tmp_path_factory):
    """A finished run of each choice, with its experiment."""
    made = {}
    for state in ("average", "local", "static"):
        experiment = Experiment(config(bright, state))
        made[state] = experiment, experiment.run(tmp_path_factory.mktemp(state) / "run", progress=False)
    return made


def statistics(params):
    return params[STATE]["batch_stats"]["norm"]


def own_images(experiment, client):
    """float64 `[n, pixels]` of the samples that a client trains on."""
    simulation = experiment.simulation
    return simulation.dataset.x_train[simulation.split.clients[client]].reshape(-1, SIDE * SIDE) / 255.0


def test_each_client_keeps_its_own_layers(runs):
    experiment, finished = runs["local"]
    own = finished.params[CLIENTS]
    found = own[STATE]["batch_stats"]["norm"]
    for client in range(4):
        images = own_images(experiment, client)
        np.testing.assert_allclose(found["mean"][client], images.mean(axis=0), atol=0.05 * images.mean() + 0.01)
    assert np.ptp(own["norm"]["scale"], axis=0).max() > 1e-3  # trained apart from each other
    saved = load_model(str(finished.workdir / "final_model.npz"))
    np.testing.assert_array_equal(saved[CLIENTS][STATE]["batch_stats"]["norm"]["mean"], found["mean"])


def test_the_server_keeps_what_nobody_sends(runs):
    for state in ("local", "static"):
        experiment, finished = runs[state]
        simulation = experiment.simulation
        first = simulation.method.model.init(simulation.init_key)
        if state == "local":
            tiny.same(finished.params["norm"], first["norm"])
            tiny.same(statistics(finished.params), statistics(first))
        assert not np.array_equal(finished.params["hidden"]["kernel"], first["hidden"]["kernel"])


def test_the_score_is_the_mean_over_the_clients_models(runs):
    """By a loop over the saved model, in NumPy."""
    experiment, finished = runs["local"]
    simulation, params = experiment.simulation, finished.params
    x = simulation.dataset.x_test.reshape(len(simulation.dataset.x_test), -1) / 255.0
    y, right, losses = simulation.dataset.y_test, [], []
    for client in range(4):
        model = client_model(params, client)
        norm, stats = model["norm"], statistics(model)
        h = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * norm["scale"] + norm["bias"]
        h = np.maximum(h @ params["hidden"]["kernel"] + params["hidden"]["bias"], 0)
        logits = h @ params["out"]["kernel"] + params["out"]["bias"]
        right.append(np.mean(logits.argmax(axis=1) == y))
        losses.append(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]))
    final = finished.report["final"]
    assert final["accuracy"] == pytest.approx(np.mean(right), abs=1e-6)
    assert final["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    (last,) = [r for r in read_metrics(finished.workdir / "metrics.jsonl") if r["kind"] == "final"]
    assert np.std(last["mask"]["per_client"]) > 0  # each of its own model


def test_static_statistics_are_those_of_the_clients_data(runs):
    """The mean over batches; of the images themselves the mean is that of all images."""
    experiment, finished = runs["static"]
    images = np.concatenate([own_images(experiment, client) for client in range(4)])
    assert len(images) % 10 == 0  # each image counts
    np.testing.assert_allclose(statistics(finished.params)["mean"], images.mean(axis=0), rtol=1e-4)
    # of variances the mean lacks what batches' means differ by
    np.testing.assert_allclose(statistics(finished.params)["var"], images.var(axis=0), rtol=0.35)


def test_the_three_differ_as_they_should(runs):
    """Averaged statistics are a mixture like static ones; with its own, a client's model suits its own brightness."""
    average, static = (statistics(runs[state][1].params)["mean"] for state in ("average", "static"))
    images = np.stack([own_images(runs["average"][0], client).mean(axis=0) for client in range(4)])
    assert np.abs(average - images.mean(axis=0)).max() < 0.15 < np.abs(average - images[0]).max()
    assert not np.array_equal(average, static)
    losses = {state: finished.report["final"]["loss"] for state, (_, finished) in runs.items()}
    assert len({round(loss, 6) for loss in losses.values()}) == 3
    trained = {state: finished.params["hidden"]["kernel"] for state, (_, finished) in runs.items()}
    tiny.close(trained["average"], trained["static"], 1e-6)  # training normalises by the batch, whatever is kept
    assert np.abs(trained["local"] - trained["static"]).max() > 1e-3  # their scales and biases are not averaged


def test_what_stays_costs_no_bytes(runs):
    pixels = SIDE * SIDE
    dense = pixels * 12 + 12 + 12 * CLASSES + CLASSES
    for state, values in {"average": dense + 4 * pixels, "static": dense + 2 * pixels, "local": dense}.items():
        size = runs[state][0].simulation.method.size
        assert size.value_bytes(100) == 4 * values


@pytest.mark.parametrize(
    ("state", "strategy", "changes"),
    [
        ("local", "prfl", dict(rounds=16)),
        slow("static", "prfl", dict(rounds=16)),
        slow("local", "fedbuff", dict(rounds=16, engine__clients="vmap", engine__train="pending")),
        slow("local", "fedasyn", dict(rounds=16, window__cohort=2)),
    ],
)
def test_a_run_goes_on_to_the_bit(bright, tmp_path, state, strategy, changes):
    made = config(bright, state, strategy, **changes)
    whole = Experiment(made).run(tmp_path / "whole", progress=False)
    with pytest.raises(Interrupted):
        Experiment(made).run(tmp_path / "stopped", progress=False, guard=tiny.StopAt(8))
    again = Experiment(made).run(tmp_path / "stopped", progress=False)
    tiny.same(again.params, whole.params)
    assert again.report["final"] == whole.report["final"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            dict(model__state="local", model__name="tiny:TwoLayers"),
            "state='local': 'tiny:TwoLayers' has no state",
        ),
        (dict(model__state="static", model__name="tiny:TwoLayers"), "has no state"),
        (dict(model__state="static", aggregation__clip_norm=1.0), "aggregation.clip_norm=1.0: allowed with a model"),
        (dict(model__state="local", attack__name="nan", attack__number=1), "attack.name='nan'.*own models"),
        (dict(model__state="local", model__name=f"{__file__}:AllNormed"), "all params of .*nothing would be sent"),
        (dict(model__state="local", local__name="scaffold"), "model.state='local': allowed is average or static"),
        (dict(model__state="median"), "model.state='median'.*average, local, static"),
    ],
)
def test_what_cannot_be_is_refused(bright, changes, said):
    with pytest.raises(UserError, match=said) as caught:
        Experiment(config(bright, "average", **changes))
    assert "\n" not in str(caught.value)


def test_the_score_of_static_does_not_depend_on_the_batch(bright):
    finals = [
        tiny.run_experiment(Experiment(config(bright, "static", rounds=3, eval__batch_size=size))).report["final"]
        for size in (7, 80)
    ]
    assert finals[0]["loss"] == pytest.approx(finals[1]["loss"], rel=1e-5)


def test_parameters_are_counted_alike(runs):
    counts = {state: finished.report["model"]["parameters"] for state, (_, finished) in runs.items()}
    assert set(counts.values()) == {2 * SIDE * SIDE + SIDE * SIDE * 12 + 12 + 12 * CLASSES + CLASSES}


def test_scaffold_charges_what_is_trained_twice(bright):
    """The statistics are sent once."""
    simulations = [Experiment(config(bright, "average", name)).simulation for name in ("fedavg", "scaffold")]
    once, twice = (simulation.costs(np.full(4, 100)) for simulation in simulations)
    state = 4 * 2 * SIDE * SIDE
    assert (twice.up_bytes == 2 * once.up_bytes - state).all()
    assert (twice.down_bytes == 2 * once.down_bytes - state).all()


@pytest.mark.slow
@pytest.mark.parametrize("state", ["local", "static"])
def test_runs_in_a_batch_equal_runs_alone(bright, tmp_path, state):
    configs = [config(bright, state, seed=seed, rounds=4) for seed in (0, 1)]
    together = run_batched(configs, [tmp_path / "0", tmp_path / "1"], progress=False)
    for made, finished in zip(configs, together, strict=True):
        tiny.close(finished.params, tiny.run_experiment(Experiment(made)).params, 1e-5)


def test_a_compared_strategy_is_refused_before_the_run(bright):
    """FedBuff adds updates, which running statistics do not bear."""
    made = config(bright, "average", compare=("fedbuff",))
    model = Experiment(made).simulation.method.model
    with pytest.raises(UserError, match="config.compare='fedbuff' cannot run .*adds updates"):
        check_compared(made, model)
    check_compared(config(bright, "local", compare=("fedbuff",)), model)

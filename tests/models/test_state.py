"""State of models: running statistics in training, evaluation and files, and what else a module may keep."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import module_zoo as zoo
import numpy as np
import pytest
import tiny
from flax import nnx
from marked import slow_except
from training_oracle import BatchNormNet

from prfl_jax.models import check_statistics, load_model, make_loss, norm_leaves, save_model, statistics
from prfl_jax.models.build import flat_paths, wrap_linen, wrap_module
from prfl_jax.models.variables import STATE, split_state, with_state
from prfl_jax.submodel.layout import Layout
from prfl_jax.system.errors import UserError

SHAPE, CLASSES, KEY = (6, 6, 1), 4, jax.random.key(1)
rng = np.random.default_rng(0)
BATCHES = rng.normal(1.0, 2.0, (20, 16, *SHAPE)).astype(np.float32)
LABELS = rng.integers(0, CLASSES, (20, 16))
softmax = make_loss("softmax")


class Normed(nn.Module):
    classes: int = CLASSES
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x, train):
        h = nn.Dense(8, name="dense0")(zoo.flat(x))
        h = nn.BatchNorm(use_running_average=not train, momentum=self.momentum, name="norm")(h)
        return nn.Dense(self.classes, name="dense1")(nn.relu(h))


class NnxNormed(nnx.Module):
    def __init__(self, classes, *, rngs):
        self.dense0, self.dense1 = nnx.Linear(36, 8, rngs=rngs), nnx.Linear(8, classes, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)

    def __call__(self, x):
        return self.dense1(nnx.relu(self.norm(self.dense0(zoo.flat(x)))))


@pytest.fixture(scope="module", params=[Normed, NnxNormed], ids=["linen", "nnx"])
def model(request):
    return wrap_module("normed", request.param, SHAPE, CLASSES)


@pytest.fixture(scope="module")
def start(model):
    return jax.jit(model.init)(jax.random.key(0))


PARAMS = [("dense0", "kernel"), ("dense0", "bias"), ("norm", "scale"), ("norm", "bias")]
PARAMS += [("dense1", "kernel"), ("dense1", "bias")]


def oracle_of(params, momentum=0.9):
    return BatchNormNet([params[layer][leaf] for layer, leaf in PARAMS], momentum)


def running(params):
    """(mean, variance) in a state."""
    (norm,) = (part["norm"] for part in (params[STATE], *params[STATE].values()) if "norm" in part)
    return norm["mean"], norm["var"]


def evaluate(model, params, x):
    return jax.jit(lambda params, x: model.apply(params, x, False, None))(params, x)


def sgd_step(model):
    """(params, x, y) -> params after a step of SGD, with the state after it."""

    def loss(trained, params, x, y):
        logits, state = model.step(with_state(trained, params[STATE]), x, KEY)
        return jnp.mean(softmax(logits, y)), state

    @jax.jit
    def step(params, x, y):
        trained, _ = split_state(params)
        gradient, state = jax.grad(loss, has_aux=True)(trained, params, x, y)
        return with_state(jax.tree.map(lambda w, g: w - 0.1 * g, trained, gradient), state)

    return step


def test_twenty_steps_of_batch_norm_against_numpy(model, start):
    """Weights, running statistics and outputs in evaluation."""
    params, oracle, step = start, oracle_of(start), sgd_step(model)
    for x, y in zip(BATCHES, LABELS, strict=True):
        params = step(params, x, y)
        oracle.step(x.reshape(16, -1).astype(np.float64), y, 0.1)
    # together: the bias in front of the norm has the gradient 0
    got, want = ([w.reshape(-1) for w in ws] for ws in ([params[layer][leaf] for layer, leaf in PARAMS], oracle.w))
    tiny.close(np.concatenate(got), np.concatenate(want), 1e-5)
    tiny.close(running(params), (oracle.mean, oracle.var), 1e-5)
    x = BATCHES[0]
    tiny.close(evaluate(model, params, x), oracle.logits(x.reshape(16, -1).astype(np.float64)), 1e-5)


def test_a_step_computes_what_apply_does(model, start):
    assert model.has_state and (model.num_parameters(), model.num_state()) == (36 * 8 + 8 + 16 + 36, 16)

    @jax.jit
    def both(params, x):
        return model.step(params, x, KEY), model.apply(params, x, True, KEY), model.apply(params, x, False, None)

    (logits, state), applied, evaluated = both(start, BATCHES[0])
    tiny.same(logits, applied)
    assert not np.allclose(logits, evaluated, atol=1e-3)
    assert jax.tree.structure(state) == jax.tree.structure(start[STATE])
    for leaf in jax.tree.leaves(state):
        assert leaf.dtype == jnp.float32 and not leaf.weak_type and leaf.shape == (8,)


def test_no_gradient_reaches_a_state():
    class Uses(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            seen = self.variable("seen", "mean", lambda: jnp.ones(36))
            h = nn.Dense(CLASSES)(zoo.flat(x) * seen.value)
            if train:
                seen.value = 0.5 * seen.value + 0.5 * zoo.flat(x).mean(0)
            return h

    model = wrap_linen("uses", Uses(), SHAPE, CLASSES)
    params = jax.jit(model.init)(jax.random.key(0))
    for function in (lambda p: model.apply(p, BATCHES[0], True, KEY), lambda p: model.step(p, BATCHES[0], KEY)):
        total = jax.grad(lambda p, function=function: sum(map(jnp.sum, jax.tree.leaves(function(p)))))
        gradient = jax.jit(total)(params)
        assert not np.any(gradient[STATE]["seen"]["mean"]) and np.any(gradient["Dense_0"]["kernel"])


def test_a_module_without_state_has_none():
    model = wrap_linen("plain", tiny.TwoLayers(CLASSES), SHAPE, CLASSES)
    params = jax.jit(model.init)(jax.random.key(0))
    assert not model.has_state and STATE not in params and model.num_state() == 0
    logits, state = jax.jit(model.step)(params, BATCHES[0], KEY)
    tiny.same(logits, jax.jit(model.apply, static_argnums=2)(params, BATCHES[0], True, KEY))
    assert state == {} and norm_leaves(model) == set()


def test_the_leaves_of_layers_with_state(model):
    assert norm_leaves(model) == {"norm/scale", "norm/bias"}


def test_steps_of_several_clients_at_once(model, start):
    trees = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 0.1]), start)
    at_once = jax.jit(jax.vmap(model.step, in_axes=(0, 0, None)))(trees, BATCHES[:2], KEY)
    alone = [jax.jit(model.step)(jax.tree.map(lambda leaf, k=k: leaf[k], trees), BATCHES[k], KEY) for k in range(2)]
    tiny.close(at_once, jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone), 1e-5)


# Statistics computed anew.


@pytest.mark.parametrize("momentum", slow_except([0.9, 0.99, 0.0], 0.9))
def test_statistics_are_the_mean_of_the_batches_own(momentum):
    model = wrap_linen("normed", Normed(momentum=momentum), SHAPE, CLASSES)
    check_statistics(model)
    params = jax.jit(model.init)(jax.random.key(0))
    own = [oracle_of(params).statistics(x.reshape(16, -1).astype(np.float64)) for x in 100 * BATCHES[:5]]
    want = tuple(np.mean(one, axis=0) for one in zip(*own, strict=True))
    compute = jax.jit(lambda params, batches: statistics(model, params, batches))
    for factor in (1.0, 7.0):  # whatever the state before
        params = with_state(params, jax.tree.map(lambda leaf, factor=factor: factor * leaf, params[STATE]))
        tiny.close(running({STATE: compute(params, 100 * BATCHES[:5])}), want, 1e-5)


@pytest.mark.slow
def test_statistics_of_an_nnx_module():
    model = wrap_module("normed", NnxNormed, SHAPE, CLASSES)
    check_statistics(model)
    params = jax.jit(model.init)(jax.random.key(0))
    want = oracle_of(params).statistics(BATCHES[0].reshape(16, -1).astype(np.float64))
    tiny.close(running({STATE: statistics(model, params, BATCHES[:1])}), want, 1e-5)


class Remembers(nn.Module):
    """Keeps the largest value that it has seen."""

    classes: int

    @nn.compact
    def __call__(self, x, train):
        largest = self.variable("seen", "largest", lambda: jnp.zeros(36))
        if train:
            largest.value = jnp.maximum(largest.value, zoo.flat(x).max(0))
        return nn.Dense(self.classes)(zoo.flat(x) / (1 + largest.value))


@pytest.mark.parametrize(
    "module", slow_except([Remembers, zoo.LinenCounter, zoo.NnxCountsInTraining, tiny.TwoLayers], Remembers)
)
def test_state_that_is_no_average_cannot_be_computed_anew(module):
    model = wrap_module("theirs", module, SHAPE, CLASSES)
    with pytest.raises(UserError, match="config.model.state='static': .*theirs.*; allowed: average") as caught:
        check_statistics(model)
    assert "\n" not in str(caught.value)


# Which variables are state.


@pytest.mark.slow
def test_a_frozen_norm_beside_a_trained_one():
    """One collection with a state and a fixed variable."""

    class Both(nn.Module):
        classes: int

        @nn.compact
        def __call__(self, x, train):
            h = nn.BatchNorm(use_running_average=True, name="frozen")(nn.Dense(8)(zoo.flat(x)))
            return nn.Dense(self.classes)(nn.BatchNorm(use_running_average=not train, name="norm")(h))

    model = wrap_module("both", Both, SHAPE, CLASSES)
    tree = jax.jit(model.whole)(jax.random.key(0))
    assert tree[STATE]["batch_stats"].keys() == {"norm"} and tree["@fixed"]["batch_stats"].keys() == {"frozen"}
    assert norm_leaves(model) == {"norm/scale", "norm/bias"}
    _, state = jax.jit(model.step)(tree, BATCHES[0], KEY)
    assert jax.tree.structure(state) == jax.tree.structure(tree[STATE])
    bound = model.bound(tree.pop("@fixed"))
    tiny.same(jax.jit(bound.step)(tree, BATCHES[0], KEY)[1], state)


@pytest.mark.parametrize("module", [zoo.LinenCounter, zoo.NnxCountsInTraining])
def test_floats_that_count_in_training_are_state(module):
    model = wrap_module("theirs", module, SHAPE, CLASSES)
    params = jax.jit(model.init)(jax.random.key(0))
    for calls in (1, 2):
        params = with_state(params, model.step(params, BATCHES[0], KEY)[1])
        assert float(jax.tree.leaves(params[STATE])[0]) == calls
    assert norm_leaves(model) == set()


class Projects(nn.Module):
    """State of rank 2, which a product reads."""

    classes: int

    @nn.compact
    def __call__(self, x, train):
        seen = self.variable("seen", "products", lambda: jnp.eye(36))
        h = zoo.flat(x) @ seen.value
        if train:
            seen.value = 0.9 * seen.value + 0.1 * (zoo.flat(x).T @ zoo.flat(x)) / len(x)
        return nn.Dense(self.classes)(h)


def test_a_state_of_rank_two_is_sent_and_never_pruned():
    model = wrap_linen("projects", Projects(CLASSES), SHAPE, CLASSES)
    for channels in (False, True):
        layout = Layout.of(model.shapes(), channels=channels)
        pruned = [layout.paths[i] for i in layout.prunable]
        assert pruned == (["Dense_0/bias", "Dense_0/kernel"] if channels else ["Dense_0/kernel"])
        assert layout.param_shapes() == {"Dense_0/bias": (4,), "Dense_0/kernel": (36, 4)}
    size = Layout.of(model.shapes()).model_size(model, None, 5)
    assert (size.layers, size.fixed) == ((36 * 4,), 36 * 36 + 4)
    assert size.value_bytes(100) == 4 * (36 * 4 + 4 + 36 * 36)
    assert model.flop.by_leaf() == {"Dense_0/kernel": 2 * 36 * 4, "Dense_0/bias": 0}
    assert size.rest_flop == 2 * 36 * 36  # the product with the state; the other one is of no use to the outputs


# Files.


def test_a_saved_model_keeps_its_state(model, start, tmp_path):
    params = sgd_step(model)(start, BATCHES[0], LABELS[0])
    save_model(str(tmp_path / "m.npz"), params)
    loaded = load_model(str(tmp_path / "m.npz"))
    tiny.same(loaded, params)
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    assert {path for path in flat_paths(loaded) if path.startswith("@state/")}
    tiny.same(evaluate(model, loaded, BATCHES[1]), evaluate(model, params, BATCHES[1]))
    with pytest.raises(ValueError, match="without the module's state"):
        model.apply(split_state(loaded)[0], BATCHES[1], False, None)

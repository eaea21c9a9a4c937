"""LSTM and GRU layers: training against NumPy, gradients against JAX's own, and which step is the last."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from marked import slow
from network_cases import settings
from training_oracle import StackedLSTM, sigmoid

from prfl_jax.models import build_model, make_loss
from prfl_jax.models.recurrent import GRU, LSTM, last_step
from prfl_jax.tasks import SEQUENCES, SampleSpec

rng = np.random.default_rng(0)


def oracle_of(params):
    layers = [[params[f"lstm{k}"][leaf] for leaf in ("kernel", "recurrent_kernel", "bias")] for k in range(2)]
    return StackedLSTM(
        params["embedding"]["embedding"], layers, [params["output"][leaf] for leaf in ("kernel", "bias")]
    )


def test_twenty_steps_of_the_character_lstm_against_numpy():
    """Each a batch of five sequences of six tokens; the learning rate is large, so that all weights move."""
    sample = SampleSpec((6,), SEQUENCES, tokens=7)
    model = build_model(settings("char_lstm", 8 / 256), sample, 7, sequence=True)
    loss = make_loss("softmax")

    def batch_loss(params, x, y):
        return jnp.mean(loss(model.apply(params, x, True, None).reshape(-1, 7), y.reshape(-1)))

    @jax.jit
    def step(params, x, y):
        return jax.tree.map(lambda w, g: w - 1.0 * g, params, jax.grad(batch_loss)(params, x, y))

    params = jax.jit(model.init)(jax.random.key(0))
    oracle = oracle_of(params)
    for x, y in zip(*rng.integers(0, 7, (2, 20, 5, 6)).astype(np.int32), strict=True):
        params = step(params, x, y)
        oracle.step(x, y, 1.0)
    start = jax.jit(model.init)(jax.random.key(0))
    for got, want, first in zip(*(oracle_of(p).weights() for p in (params, start)), oracle.weights(), strict=True):
        assert np.abs(got - want).max() > 1e-3, "it did not move"
        tiny.close(got, first, 1e-5)


def gru_step(p, x, h):
    """Reset, update, new; the reset multiplies what h gives, with its bias."""
    units = len(p["recurrent_bias"])
    given, again = x @ p["kernel"] + p["bias"], h @ p["recurrent_kernel"]
    reset = sigmoid(given[:, :units] + again[:, :units])
    update = sigmoid(given[:, units : 2 * units] + again[:, units : 2 * units])
    new = np.tanh(given[:, 2 * units :] + reset * (again[:, 2 * units :] + p["recurrent_bias"]))
    return update * h + (1 - update) * new


def gru_loss(p, x, weights):
    h, total = np.zeros((x.shape[1], len(p["recurrent_bias"]))), 0.0
    for t in range(len(x)):
        h = gru_step(p, x[t], h)
        total += (weights[t] * h).sum()
    return total


def test_the_gru_and_its_gradient_against_numpy():
    """The gradient by differences, in random directions."""
    layer, x, weights = GRU(3), rng.normal(size=(4, 2, 2)), rng.normal(size=(4, 2, 3))
    shapes = jax.eval_shape(layer.init, jax.random.key(0), jnp.asarray(x, jnp.float32))["params"]
    assert {name: leaf.shape for name, leaf in shapes.items()} == {
        "kernel": (2, 9), "recurrent_kernel": (3, 9), "bias": (9,), "recurrent_bias": (3,)
    }  # fmt: skip
    params = {name: rng.normal(size=leaf.shape) for name, leaf in shapes.items()}

    @jax.jit
    def both(params, x):
        return jax.value_and_grad(lambda p: jnp.sum(weights * layer.apply({"params": p}, x)))(params)

    value, gradient = both(jax.tree.map(jnp.float32, params), jnp.float32(x))
    assert float(value) == pytest.approx(gru_loss(params, x, weights), rel=1e-5)
    for name in params:
        direction = {other: rng.normal(size=w.shape) * (other == name) for other, w in params.items()}
        ahead, behind = (
            gru_loss({n: w + sign * 1e-5 * direction[n] for n, w in params.items()}, x, weights) for sign in (1, -1)
        )
        got = float((gradient[name] * direction[name]).sum())
        assert got == pytest.approx((ahead - behind) / 2e-5, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("layer", [LSTM(4), slow(GRU(4))], ids=["LSTM", "GRU"])
def test_gradients_are_those_of_a_loop_without_their_own_rule(layer):
    """Of weights and inputs; also of several clients at once, whose kernels differ."""
    cell, (clients, steps, batch) = layer.cell, (2, 5, 3)
    x, weights = (rng.normal(size=(clients, steps, batch, 4)).astype(np.float32) for _ in range(2))
    shapes = jax.eval_shape(layer.init, jax.random.key(0), x[0])["params"]
    params = {name: rng.normal(size=(clients, *leaf.shape)).astype(np.float32) for name, leaf in shapes.items()}

    def by_loop(p, x):
        bias = jnp.concatenate([jnp.zeros(8), p["recurrent_bias"]]) if "recurrent_bias" in p else 0.0
        carried, outputs = (jnp.zeros((batch, 4)),) * cell.states, []
        for t in range(steps):
            given = x[t] @ p["kernel"] + p["bias"]
            carried, _ = cell.forward(given, carried[0] @ p["recurrent_kernel"] + bias, carried)
            outputs.append(carried[0])
        return jnp.stack(outputs)

    def gradients(function):
        return jax.value_and_grad(lambda p, x, w: jnp.sum(w * function(p, x)), argnums=(0, 1))

    @jax.jit
    def three(params, x, weights):
        layer_s = gradients(lambda p, x: layer.apply({"params": p}, x))
        first = jax.tree.map(lambda leaf: leaf[0], (params, x, weights))
        return gradients(by_loop)(*first), layer_s(*first), jax.vmap(layer_s)(params, x, weights)

    want, got, at_once = three(params, x, weights)
    tiny.close(got, want, 1e-5)
    tiny.close(jax.tree.map(lambda leaf: leaf[0], at_once), want, 1e-5)


def test_recurrent_products_outside_the_loop():
    """In a training step of the LSTM each loop has one product, and the recurrent kernel's gradient is none of them."""
    layer, x = LSTM(4), jnp.zeros((5, 3, 2))
    params = layer.init(jax.random.key(0), x)
    step = jax.grad(lambda p, x: jnp.sum(layer.apply(p, x)), argnums=(0, 1))
    scans = [equation for equation in tiny.equations(step, params, x) if equation.primitive.name == "scan"]
    assert len(scans) == 2
    for scan in scans:
        inside = [equation.primitive.name for equation in scan.params["jaxpr"].jaxpr.eqns]
        assert inside.count("dot_general") == 1
    assert tiny.primitives(step, params, x).count("dot_general") == 2 + 2 + 2  # loops, the input's three, the kernel's


def test_the_last_step_before_the_padding():
    h = jnp.arange(3 * 4).reshape(3, 4, 1)  # three steps of four samples
    assert last_step(h, jnp.array([3, 1, 2, 0]))[:, 0].tolist() == [8, 1, 6, 3]


def test_first_weights_of_recurrent_layers():
    release, flax = (
        jax.jit(LSTM(4, init).init)(jax.random.key(0), jnp.zeros((1, 1, 3)))["params"] for init in ("release", "flax")
    )
    assert np.abs(release["recurrent_kernel"]).max() <= 1 / 2 and np.abs(release["kernel"]).max() <= 1 / 2
    for gate in range(4):
        block = np.asarray(flax["recurrent_kernel"], np.float64)[:, 4 * gate : 4 * gate + 4]
        np.testing.assert_allclose(block @ block.T, np.eye(4), atol=1e-5)
    for layer in (release, flax):
        assert layer["bias"].tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8

"""SCAFFOLD: one weight by hand, and what is refused with it. Whole runs against NumPy: tests/engine/test_oracle.py."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from prfl_jax.config.validate import validate
from prfl_jax.local import LocalInput, LocalSettings, LocalTask
from prfl_jax.local.scaffold import CONTROL_VARIATES, scaffold_round
from prfl_jax.local.work import Batches
from prfl_jax.models.build import wrap_linen
from prfl_jax.submodel.layout import Layout
from prfl_jax.system.errors import UserError


class OneWeight(nn.Module):
    """logit = w x, with w = 1 at the start."""

    @nn.compact
    def __call__(self, x):
        return x * self.param("w", nn.initializers.ones, (1,))


def task(steps):
    """A client's loss is (w - y)^2 / 2, so that its gradient is w - y."""
    model = wrap_linen("one", OneWeight(), (1,), 1)
    loss = lambda logits, y: (logits[:, 0] - y) ** 2 / 2  # noqa: E731
    return LocalTask(model, loss, Layout.of(model.shapes()), LocalSettings(steps=steps, batch_size=1))


@functools.cache
def compiled(steps):
    """The round of `task(steps)`."""
    made = task(steps)

    def one(w, y, lr, own, c):
        x, targets = jnp.ones((steps, 1, 1)), jnp.full((steps, 1), y)
        params, kept, beside = ({"w": jnp.reshape(value, (1,))} for value in (w, own, c))
        batches = Batches(one=lambda k: (x[k], targets[k]), all=lambda: (x, targets))
        given = LocalInput(params, (), batches, lr, jax.random.key(0), kept=kept, beside=beside)
        result = scaffold_round(made, given)
        return result.params["w"][0], result.kept["w"][0]

    return jax.jit(one)


def run(steps, *numbers):
    """(w, c_i+) of a client's round from (w, the client's optimum, lr, c_i, c)."""
    return tuple(map(float, compiled(steps)(*map(jnp.float32, numbers))))


def test_one_weight_by_hand():
    """w = 1, the optimum at 3, lr 1/2, two steps; c_i = 1/4, c = -1/2.

    Gradients 1 - 3 = -2 and, with c - c_i = -3/4, w1 = 1 + 1.375; then -0.625 - 0.75 and w2 = 2.375 + 0.6875.
    c_i+ = 1/4 + 1/2 + (1 - 3.0625) / (2 / 2).
    """
    w, own = run(2, 1.0, 3.0, 0.5, 0.25, -0.5)
    assert w == pytest.approx(3.0625) and own == pytest.approx(0.75 - 2.0625)


def test_without_variates_it_is_sgd_and_keeps_the_mean_gradient():
    w, own = run(2, 1.0, 3.0, 0.5, 0.0, 0.0)
    assert w == pytest.approx(2.5) and own == pytest.approx((-2.0 + -1.0) / 2)


def test_two_clients_reach_the_mean_of_their_optima():
    """Clients at 0 and 10 with two steps and one: FedAvg's fixed point is not 5, SCAFFOLD's is."""
    steps, optima = (4, 1), (0.0, 10.0)

    def end(corrected):
        w, own, c = 1.0, [0.0, 0.0], 0.0
        for _ in range(400):
            sent = (own, c) if corrected else ([0.0, 0.0], 0.0)
            got = [
                run(made, w, y, 0.1, sent[0][i], sent[1]) for i, (made, y) in enumerate(zip(steps, optima, strict=True))
            ]
            w = np.mean([model for model, _ in got])
            new = [kept for _, kept in got]
            c, own = c + np.mean(np.subtract(new, own)), new
        return w

    assert end(corrected=True) == pytest.approx(5.0, abs=1e-3)
    assert abs(end(corrected=False) - 5.0) > 1.0


def test_a_rate_of_0_keeps_finite_variates():
    w, own = run(2, 1.0, 3.0, 0.0, 0.25, -0.5)
    assert w == 1.0 and own == pytest.approx(0.75)


def test_variates_are_of_what_is_trained():
    made = task(1)
    params = made.model.shapes()
    assert jax.eval_shape(lambda p: CONTROL_VARIATES.init(made, p), params) == params


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("local__momentum", 0.9),
        ("local__prox_mu", 0.1),
        ("local__optimizer", "adam"),
        ("local__clip_grad_norm", 1.0),
        ("local__lr_schedule", "cosine"),
        ("local__optimizer_state", "kept"),
        ("aggregation__clip_norm", 1.0),
        ("aggregation__name", "median"),
        ("model__state", "local"),
    ],
)
def test_it_is_refused_with_what_it_is_not_defined_for(key, value):
    with pytest.raises(UserError, match=f"config.{key.replace('__', '.')}=.*scaffold") as caught:
        validate(tiny.config("scaffold", **{"aggregation__byzantine": 1, key: value}))
    assert "\n" not in str(caught.value)


def test_it_is_refused_with_attacks_and_noise():
    for changes in (dict(attack__name="nan", attack__number=1), dict(privacy__noise_multiplier=1.0)):
        with pytest.raises(UserError):
            validate(tiny.config("scaffold", aggregation__clip_norm=None, **changes))
    with pytest.raises(UserError, match="attack.name='nan': allowed is none .*sent beside models bypasses it"):
        validate(tiny.config("scaffold", attack__name="nan", attack__number=1))


def test_importance_from_its_updates_is_refused():
    """An update is lr times a corrected gradient, whose square is no squared gradient."""
    with pytest.raises(UserError, match="importance='server_sq_grad'.*local.name='scaffold'"):
        validate(tiny.config("prfl", local__name="scaffold"))
    validate(tiny.config("prfl", local__name="scaffold", submodel__importance="weight"))

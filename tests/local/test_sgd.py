"""One local round against SGD written out in NumPy, float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from marked import slow
from prfl_oracle import LAYERS, masked, sgd

from prfl_jax.engine.plan import MAX_ROWS, empty_row, stack_rows
from prfl_jax.local import Batches, LocalInput, LocalSettings, LocalTask
from prfl_jax.local import work as local_work
from prfl_jax.local.sgd import make_local_round, sgd_round
from prfl_jax.local.work import MOST_UNROLLED
from prfl_jax.models import make_loss
from prfl_jax.models.build import wrap_module
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.submodel.layout import Layout

STEPS, BATCH, CLASSES, LR = 4, 6, 5, 0.3
MODEL = wrap_module("tiny", tiny.TwoLayers, (3, 3, 1), CLASSES)
LAYOUT = Layout.of(MODEL.shapes())


def start(seed=0):
    rng = np.random.default_rng(seed)
    params = {
        layer: {
            "kernel": rng.normal(0, 0.5, shape).astype(np.float32),
            "bias": rng.normal(0, 0.1, shape[-1:]).astype(np.float32),
        }
        for layer, shape in (("Dense_0", (9, 12)), ("Dense_1", (12, CLASSES)))
    }
    x = rng.random((STEPS, BATCH, 3, 3, 1)).astype(np.float32)
    return params, x, rng.integers(0, CLASSES, (STEPS, BATCH)).astype(np.int32)


def local_round(loss="sigmoid", **work):
    settings = LocalSettings(steps=STEPS, batch_size=BATCH, **work)
    return jax.jit(make_local_round(MODEL, make_loss(loss), LAYOUT, settings))


def some_masks(seed=1):
    rng = np.random.default_rng(seed)
    return tuple(rng.random(shape) < 0.4 for shape in ((9, 12), (12, CLASSES)))


KEY = jax.random.key(0)


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_without_masks(loss):
    params, x, y = start()
    result = local_round(loss)(params, (), x, y, jnp.float32(LR), KEY)
    want, value, _ = sgd(params, (), x, y, LR, loss)
    tiny.close(result.params, want, 1e-5)
    assert float(result.loss) == pytest.approx(value, rel=1e-5)
    assert result.squares == ()


@pytest.mark.parametrize("momentum,unroll", [slow(0.0, True), (0.9, True), slow(0.9, False)])
def test_under_masks_with_and_without_momentum(momentum, unroll):
    params, x, y = start()
    masks = some_masks()
    params = masked(params, masks)
    result = local_round(momentum=momentum, unroll=unroll, square_gradients=True)(
        params, masks, x, y, jnp.float32(LR), KEY
    )
    want, value, squares = sgd(params, masks, x, y, LR, momentum=momentum)
    tiny.close(result.params, want, 1e-5)
    assert float(result.loss) == pytest.approx(value, rel=1e-5)
    for got, square, mask, layer in zip(result.squares, squares, masks, LAYERS, strict=True):
        tiny.close(got, square, 1e-5)
        assert not np.asarray(got)[~mask].any()
        kernel = np.asarray(result.params[layer]["kernel"])
        assert not kernel[~mask].any()  # exactly 0
        assert (kernel[mask] != params[layer]["kernel"][mask]).mean() > 0.5  # and the others were trained


def test_full_masks_change_nothing():
    params, x, y = start()
    full = tuple(np.ones(shape, bool) for shape in ((9, 12), (12, CLASSES)))
    run = local_round()
    tiny.same(run(params, full, x, y, jnp.float32(LR), KEY).params, run(params, (), x, y, jnp.float32(LR), KEY).params)


def test_an_empty_mask_trains_the_biases_alone():
    params, x, y = start()
    none = tuple(np.zeros(shape, bool) for shape in ((9, 12), (12, CLASSES)))
    result = local_round()(masked(params, none), none, x, y, jnp.float32(LR), KEY)
    assert not any(np.asarray(result.params[layer]["kernel"]).any() for layer in LAYERS)
    want, _, _ = sgd(masked(params, none), none, x, y, LR)
    tiny.close(result.params, want, 1e-5)


@pytest.mark.parametrize("more", [slow({}), {"momentum": 0.9, "prox_mu": 0.1, "square_gradients": True}])
def test_a_long_round_is_the_same_steps_one_batch_at_a_time(more, monkeypatch):
    steps = 40
    params = MODEL.init(KEY)
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.random((steps, 4, *MODEL.input_shape), np.float32))
    y = jnp.asarray(rng.integers(0, MODEL.classes, (steps, 4)), jnp.int32)
    work = LocalSettings(steps, 4, **more)
    assert work.long and not LocalSettings(MOST_UNROLLED, 4).long
    task = LocalTask(MODEL, make_loss("sigmoid"), LAYOUT, work)
    batches = Batches(one=lambda k: (x[k], y[k]), all=lambda: (x, y))
    run = jax.jit(lambda p: sgd_round(task, LocalInput(p, (), batches, jnp.float32(0.1), KEY)))
    got = run(params)
    monkeypatch.setattr(local_work, "MOST_UNROLLED", steps)
    assert not work.long
    task = LocalTask(MODEL, make_loss("sigmoid"), LAYOUT, dataclasses.replace(work, unroll=False))
    want = jax.jit(lambda p: sgd_round(task, LocalInput(p, (), batches, jnp.float32(0.1), KEY)))(params)
    tiny.close(got.params, want.params, 1e-5)
    tiny.close(got.squares, want.squares, 1e-5)
    assert float(got.loss) == pytest.approx(float(want.loss), rel=1e-5)


def test_the_program_of_many_steps_is_as_long_as_of_some():
    def equations(steps):
        simulation = tiny.simulation("fedavg", local__steps=steps)
        state = jax.eval_shape(simulation.engine.init_state, simulation.init_key)
        plan = stack_rows([empty_row(4)], MAX_ROWS)
        args = (state, simulation.device_data(), plan, np.int32(0), simulation.keys)
        return len(tiny.equations(simulation.engine.run_chunk, *args))

    assert equations(10**9) == equations(33) < 3 * equations(2)


@pytest.mark.slow
def test_a_run_of_many_steps_draws_the_batches_of_a_short_one(monkeypatch):
    """40 steps by the loop, and drawn at once: the same arrivals and, to rounding, the same model."""
    changes = dict(rounds=2, local__steps=40, engine__chunk_windows=1, attack__name="label_flip", attack__number=1)
    looped = tiny.run("prfl", **changes)
    monkeypatch.setattr(local_work, "MOST_UNROLLED", 40)
    unrolled = tiny.run_experiment(Experiment(tiny.config("prfl", engine__unroll=False, **changes)))
    tiny.close(looped.params, unrolled.params, 1e-4)
    for one, other in zip(looped.of("window"), unrolled.of("window"), strict=True):
        assert one["arrivals"] == other["arrivals"]
        np.testing.assert_allclose(one["loss"], other["loss"], rtol=1e-4)

"""FjORD's ordered dropout: the width of each step, and training against the network really cut out at that width."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from cut_network import train
from marked import slow

from prfl_jax.local import Batches, LocalInput, LocalSettings, LocalTask, find_local
from prfl_jax.local.ordered import draw_width
from prfl_jax.local.sgd import StepMasks, sgd_round
from prfl_jax.models import build_model, make_loss
from prfl_jax.submodel.layers import layer_table
from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.leading import leading_levels
from prfl_jax.submodel.masks import apply_masks

TIERS = (100, 50, 25, 13, 6)
SHAPE, STEPS, LR = (28, 28, 1), 6, 0.5
KEY = jax.random.key(5)


def widths(own, key=KEY, steps=200, tiers=TIERS):
    draw = jax.jit(jax.vmap(lambda number: draw_width(tiers, jnp.int32(own), key, number)))
    return np.asarray(draw(jnp.arange(steps))).tolist()


@pytest.mark.parametrize(
    ("own", "may"), [(100, TIERS), (25, (25, 13, 6)), slow(70, (70, 50, 25, 13, 6)), slow(3, (3,))]
)
def test_a_step_draws_among_tiers_up_to_the_clients_density(own, may):
    drawn = widths(own)
    assert set(drawn) == set(may)
    for width in may:  # all with the same probability: within five standard deviations
        share = 1 / len(may)
        assert abs(drawn.count(width) / 200 - share) <= 5 * np.sqrt(share * (1 - share) / 200)


@pytest.mark.slow
def test_a_draw_depends_on_the_rounds_key_and_the_step_alone():
    drawn = widths(100)
    assert drawn == widths(100) and drawn[:3] == widths(100, steps=3)
    assert drawn[7] == int(draw_width(TIERS, 100, KEY, 7))  # one step by itself, not jitted
    assert drawn != widths(100, key=jax.random.fold_in(KEY, 1))


def setting(percent):
    cfg = types.SimpleNamespace(name="conv2", width=0.1, classes=None, init="release", loss="sigmoid")
    model, layers = build_model(cfg, SHAPE, 10), layer_table("conv2", SHAPE, 10, 0.1)
    layout, by_path = Layout.of(model.shapes(), channels=True), leading_levels(layers)
    levels = tuple(by_path[path] for path in layout.paths)
    masks = tuple(jnp.asarray(level <= percent) for level in levels)
    rng = np.random.default_rng(0)
    x = rng.random((STEPS, 4, *SHAPE)).astype(np.float32)
    y = rng.integers(0, 10, (STEPS, 4)).astype(np.int32)
    params = apply_masks(layout, model.init(jax.random.key(3)), masks)
    task = LocalTask(model, make_loss("sigmoid"), layout, LocalSettings(STEPS, 4, widths=TIERS), levels)
    batches = Batches(one=lambda k: (x[k], y[k]), all=lambda: (x, y))
    given = LocalInput(params, masks, batches, jnp.float32(LR), KEY, jnp.int32(percent))
    return task, given, layers, (x, y)


@pytest.mark.slow
def test_training_equals_the_network_cut_out_at_each_step():
    percent = 50
    task, given, layers, (x, y) = setting(percent)
    run = jax.jit(lambda params: find_local("ordered_sgd").round(task, given._replace(params=params)))
    result = run(given.params)
    drawn = widths(percent, steps=STEPS)
    assert len(set(drawn)) > 1 and max(drawn) <= percent
    want, losses = train(given.params, layers, x, y, LR, drawn)
    tiny.close(result.params, want, 1e-5)
    assert float(result.loss) == pytest.approx(np.mean(losses), rel=1e-5)
    # one width for all steps, as HeteroFL has it, is another training
    other, _ = train(given.params, layers, x, y, LR, [percent] * STEPS)
    assert max(np.abs(a - b).max() for a, b in zip(jax.tree.leaves(want), jax.tree.leaves(other), strict=True)) > 1e-4


@pytest.mark.slow
def test_channels_beyond_the_widths_drawn_keep_their_values():
    task, given, _, _ = setting(50)
    result = find_local("ordered_sgd").round(task, given)
    widest = max(widths(50, steps=STEPS))
    for before, after, level in zip(*map(jax.tree.leaves, (given.params, result.params)), task.levels, strict=True):
        beyond = level > widest
        np.testing.assert_array_equal(np.asarray(after)[beyond], np.asarray(before)[beyond])
        assert not np.asarray(after)[level > 50].any()


@pytest.mark.slow
def test_runs_differ_from_heterofl_and_follow_the_seed():
    fjord = [w["loss"] for w in tiny.run("fjord").of("window")]
    for other in (tiny.run("heterofl"), tiny.run("heterofl", local__name="sgd")):
        assert [w["arrivals"] for w in other.of("window")] == [w["arrivals"] for w in tiny.run("fjord").of("window")]
        assert fjord[0] != other.of("window")[0]["loss"] and fjord[3] != other.of("window")[3]["loss"]


@pytest.mark.parametrize("settings", [dict(momentum=0.9), dict(prox_mu=0.5), dict(momentum=0.9, prox_mu=0.5)])
def test_momentum_and_prox_move_only_what_a_step_trains(settings):
    """Two steps by hand: all four weights, then only the first; gradients are 1, in float64."""
    layout = Layout.of({"w": jax.ShapeDtypeStruct((4, 1), jnp.float32)}, channels=True)
    model = types.SimpleNamespace(step=lambda p, x, key: (x @ p["w"], {}))
    task = LocalTask(model, lambda logits, y: logits[:, 0], layout, LocalSettings(2, 1, **settings))
    x, y = np.ones((2, 1, 4), np.float32), np.zeros((2, 1), np.int32)
    batches = Batches(one=lambda k: (x[k], y[k]), all=lambda: (x, y))
    sent, masks = {"w": jnp.ones((4, 1))}, (jnp.ones((4, 1), bool),)
    levels = jnp.asarray([[1], [26], [51], [76]])
    result = sgd_round(
        task,
        LocalInput(sent, masks, batches, jnp.float32(0.1), KEY),
        lambda weights, number: StepMasks((levels <= jnp.asarray([100, 25])[number],)),
    )
    momentum, mu = settings.get("momentum", 0.0), settings.get("prox_mu", 0.0)
    want = np.ones(4) - 0.1  # the proximal term is 0 at the model that was sent
    second = 1.0 + mu * (want[0] - 1.0) + momentum * 1.0
    want[0] -= 0.1 * second
    np.testing.assert_allclose(np.asarray(result.params["w"])[:, 0], want, rtol=1e-6)

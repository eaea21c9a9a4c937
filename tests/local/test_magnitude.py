"""FIARSE: masks from the present weights at every step, against the method written out in float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from marked import slow_except
from prfl_oracle import LAYERS, masked, mlp_gradient

from prfl_jax.engine.plan import MAX_ROWS, stack_rows
from prfl_jax.local import Batches, LocalInput, LocalSettings, LocalTask, find_local
from prfl_jax.models import make_loss
from prfl_jax.models.build import wrap_module
from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.masks import unpack_masks
from prfl_jax.transport.costs import make_costs

STEPS, BATCH, CLASSES, LR = 5, 6, 5, 0.8
MODEL = wrap_module("tiny", tiny.TwoLayers, (3, 3, 1), CLASSES)
LAYOUT = Layout.of(MODEL.shapes())
KEY = jax.random.key(0)


def start():
    rng = np.random.default_rng(2)
    shapes = {"Dense_0": (9, 12), "Dense_1": (12, CLASSES)}
    params = {
        layer: {"kernel": rng.normal(0, 0.5, shape).astype(np.float32), "bias": np.zeros(shape[-1], np.float32)}
        for layer, shape in shapes.items()
    }
    masks = tuple(np.abs(params[layer]["kernel"]) >= np.median(np.abs(params[layer]["kernel"])) for layer in LAYERS)
    x = rng.random((STEPS, BATCH, 3, 3, 1)).astype(np.float32)
    return masked(params, masks), masks, x, rng.integers(0, CLASSES, (STEPS, BATCH)).astype(np.int32)


def run(params, masks, x, y, name="magnitude_sgd", **settings):
    task = LocalTask(MODEL, make_loss("sigmoid"), LAYOUT, LocalSettings(STEPS, BATCH, **settings))
    batches = Batches(one=lambda k: (x[k], y[k]), all=lambda: (x, y))
    given = LocalInput(params, tuple(map(jnp.asarray, masks)), batches, jnp.float32(LR), KEY)
    return jax.jit(lambda p: find_local(name).round(task, given._replace(params=p)))(params)


def written_out(params, masks, x, y):
    """(params, mean loss, how many weights count at each step)."""
    w = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    thetas = [np.abs(w[layer]["kernel"][mask]).min() for layer, mask in zip(LAYERS, masks, strict=True)]
    losses, counts = [], []
    for batch_x, batch_y in zip(x, y, strict=True):
        here = tuple(
            mask & (np.abs(w[layer]["kernel"]) >= theta)
            for layer, mask, theta in zip(LAYERS, masks, thetas, strict=True)
        )
        value, gradient = mlp_gradient(masked(w, here), batch_x, batch_y)
        for layer, mask, theta in zip(LAYERS, here, thetas, strict=True):
            size = np.abs(w[layer]["kernel"])
            factor = 1 + 2 * theta * size / (size + theta) ** 2
            gradient[layer]["kernel"] = np.where(mask, gradient[layer]["kernel"] * factor, 0)
        w = jax.tree.map(lambda p, g: p - LR * g, w, gradient)
        losses.append(value)
        counts.append(sum(int(mask.sum()) for mask in here))
    return w, np.mean(losses), counts


@pytest.mark.parametrize("unroll", slow_except([True, False], False))
def test_a_round_equals_the_method_written_out(unroll):
    params, masks, x, y = start()
    result = run(params, masks, x, y, unroll=unroll)
    want, loss, counts = written_out(params, masks, x, y)
    assert len(set(counts)) >= 3 and counts[0] == sum(
        mask.sum() for mask in masks
    )  # the masks change from step to step
    tiny.close(result.params, want, 1e-5)
    assert float(result.loss) == pytest.approx(loss, rel=1e-5)
    for layer, mask in zip(LAYERS, masks, strict=True):
        assert not np.asarray(result.params[layer]["kernel"])[~mask].any()
    plain = run(params, masks, x, y, "sgd")  # the mask of the dispatch at all steps is another training
    assert np.abs(np.asarray(plain.params["Dense_0"]["kernel"]) - want["Dense_0"]["kernel"]).max() > 1e-3


def test_a_weight_that_falls_below_the_threshold_keeps_its_value():
    params, masks, x, y = start()
    after = run(params, masks, x, y).params
    low = 0
    for layer, mask in zip(LAYERS, masks, strict=True):
        theta = np.abs(params[layer]["kernel"][mask]).min()
        below = mask & (np.abs(np.asarray(after[layer]["kernel"])) < theta)
        assert np.asarray(after[layer]["kernel"])[below].all()
        low += below.sum()
    assert low > 0


def test_a_layer_that_is_sent_whole_is_trained_by_sgd():
    params, _, x, y = start()
    whole = tuple(np.ones_like(params[layer]["kernel"], bool) for layer in LAYERS)
    tiny.close(run(params, whole, x, y).params, run(params, whole, x, y, "sgd").params, 1e-6)


def largest(weights, size, percent):
    """Masks of the `size.count(percent)` largest of all leaves, after each leaf's own first ones; ties by position."""
    sizes = [np.abs(np.asarray(weight)).reshape(-1) for weight in weights]
    masks = [np.zeros(len(s), bool) for s in sizes]
    for mask, values, count in zip(masks, sizes, size.base_counts(), strict=True):
        mask[np.argsort(-values, kind="stable")[:count]] = True
    rest = [(-value, leaf, k) for leaf, values in enumerate(sizes) for k, value in enumerate(values)]
    left = size.count(percent) - sum(mask.sum() for mask in masks)
    for _, leaf, k in sorted(entry for entry in rest if not masks[entry[1]][entry[2]])[:left]:
        masks[leaf][k] = True
    return masks


def test_the_engine_sends_the_largest_present_weights():
    simulation = tiny.simulation("fiarse")
    method, planner = simulation.method, simulation.new_planner()
    state, data, partial = simulation.init_state(simulation.init_key), simulation.device_data(), []
    chunk = simulation.executable()
    for number in range(1, 4):
        weights = [np.array(jax.tree.leaves(state.params)[i]) for i in method.layout.prunable]
        planned = planner.take()
        plan = stack_rows(planned.rows, MAX_ROWS)
        state, _ = chunk(state, data, plan, np.int32(len(planned.rows)), simulation.keys)
        for dispatch, percent in zip(planned.window.dispatches, planned.density_pct, strict=True):
            got = unpack_masks(method.layout, tuple(bits[dispatch.client] for bits in state.sent_bits))
            for own, want in zip(got, largest(weights, method.size, percent), strict=True):
                np.testing.assert_array_equal(np.asarray(own).reshape(-1), want)
            if percent < 100:
                partial.append((number, dispatch.client, np.concatenate([np.asarray(m).reshape(-1) for m in got])))
        if planner.policy.decides_after(number):
            state, costs = simulation.prune(state, planner.policy.decide(None, None).density_pct)
            planner.set_costs(costs)
    second, third = ([mask for number, client, mask in partial if (number, client) == (n, 3)] for n in (2, 3))
    assert (second[0] != third[0]).any()


def test_values_go_up_and_values_with_a_new_mask_come_down():
    size = tiny.simulation("fiarse").method.size
    costs = make_costs(size, np.array([100, 50, 6]), 1.0)
    bitmap = -(-size.prunable // 8)
    want = [round((size.count(percent) + size.fixed) * size.bytes_per_value) for percent in (100, 50, 6)]
    assert costs.up_bytes.tolist() == want and not costs.mask_bytes.any()
    assert costs.down_bytes.tolist() == [want[0], want[1] + bitmap, want[2] + min(bitmap, 4 * size.count(6))]
    for window in tiny.run("fiarse").of("window"):
        sent = dict(zip([client for client, _ in window["client_bytes_down"]], window["percents"], strict=True))
        for client, down in window["client_bytes_down"]:
            assert down == make_costs(size, np.array([sent[client]]), 1.0).down_bytes[0]


@pytest.mark.slow
def test_a_run_differs_from_other_rules_for_masks():
    net = dict(model__name="conv2", model__width=0.1)
    losses = [
        [w["loss"] for w in ran.of("window")]
        for ran in (
            tiny.run("fiarse", **net),
            tiny.run("fiarse", local__name="sgd", **net),
            tiny.run("heterofl", local__name="sgd"),
        )
    ]
    assert losses[0][0] == pytest.approx(losses[2][0], rel=1e-5)  # full models
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert losses[a][-1] != pytest.approx(losses[b][-1], rel=1e-5)

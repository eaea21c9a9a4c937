"""FedRolex: the window of kept channels moves in every window, wraps around, and trains as a network cut out."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from cut_network import kept_channels, train
from marked import slow_except

from prfl_jax.engine.plan import MAX_ROWS, stack_rows
from prfl_jax.local import LocalSettings
from prfl_jax.local.sgd import make_local_round
from prfl_jax.models import build_model, make_loss
from prfl_jax.submodel import SUBMODELS, ModelSize, Network, SubmodelRule
from prfl_jax.submodel.layers import layer_table
from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.leading import leading_size
from prfl_jax.submodel.masks import apply_masks, unpack_masks

SHAPE, WIDTH = (28, 28, 1), 0.1
LAYERS = layer_table("conv2", SHAPE, 10, WIDTH)


class Mine(SubmodelRule):
    """A rule as a plugin: the built-in sizes and levels, and masks made from the weights and levels at the dispatch."""

    channels = known_networks = True

    def fit(self, network, name):
        def masks(levels, weights, percent):
            return tuple(level <= percent for level in levels)

        return dataclasses.replace(SUBMODELS.find("rolling").fit(network, name), masks=masks)


MINE = Mine()


def model():
    cfg = types.SimpleNamespace(name="conv2", width=WIDTH, classes=None, init="release", loss="sigmoid")
    return build_model(cfg, SHAPE, 10)


LAYOUT = Layout.of(model().shapes(), channels=True)


def submodels(layers=LAYERS):
    shapes = {f"{layer.name}/bias": layer.kernel[-1:] for layer in layers}
    shapes |= {f"{layer.name}/kernel": layer.kernel for layer in layers}
    shapes = {path: shapes[path] for path in sorted(shapes)}
    size = ModelSize(layers=(1,), fixed=0, bytes_per_value=4.0)
    return SUBMODELS.find("rolling").fit(Network(shapes, size, lambda: layers), "rolling"), tuple(shapes)


def channel_masks(layers, paths, percent, shift):
    """Boolean masks by path, from the kept channels written out."""
    kept = dict(zip([layer.name for layer in layers], kept_channels(layers, percent, shift), strict=True))
    shapes = {layer.name: layer.kernel for layer in layers}
    masks = []
    for path in paths:
        name, kind = path.split("/")
        rows, columns = kept[name]
        mask = np.zeros(shapes[name] if kind == "kernel" else shapes[name][-1:], bool)
        if kind == "kernel":
            mask[..., rows[:, None], columns[None, :]] = True
        else:
            mask[columns] = True
        masks.append(mask)
    return masks


@pytest.mark.parametrize(("name", "shape", "width"), [("conv2", SHAPE, 0.1), ("vgg11", (32, 32, 3), 0.05)])
def test_masks_roll_with_the_windows_number_and_wrap_around(name, shape, width):
    layers = layer_table(name, shape, 10, width)
    rule, paths = submodels(layers)
    levels, advance = rule.levels, jax.jit(rule.advance)
    most = max(layer.kernel[-1] for layer in layers[:3])
    for window in range(most + 2):  # past the last channel of each of the first layers
        for percent in (100, 50, 13):
            for level, mask in zip(levels, channel_masks(layers, paths, percent, window), strict=True):
                np.testing.assert_array_equal(np.asarray(level) <= percent, mask)
        before, levels = levels, advance(levels)
        assert any((np.asarray(a) != np.asarray(b)).any() for a, b in zip(before, levels, strict=True))


def test_a_layer_is_back_after_as_many_windows_as_channels():
    rule, paths = submodels()
    bias = paths.index("conv1/bias")
    levels = rule.levels
    for _ in range(len(levels[bias])):
        levels = rule.advance(levels)
    np.testing.assert_array_equal(levels[bias], rule.levels[bias])


def test_bytes_are_those_of_leading_channels_in_every_window():
    rule, _ = submodels()
    levels, leading = rule.levels, leading_size(LAYERS, 4.0)
    for _ in range(7):
        for percent in (100, 50, 25, 13, 6):
            count = sum(int((np.asarray(level) <= percent).sum()) for level in levels)
            assert rule.size.value_bytes(percent) == leading.value_bytes(percent) == 4 * count
        levels = rule.advance(levels)


@pytest.mark.parametrize("shift", slow_except([0, 2, 5], 5))
def test_training_equals_that_of_the_network_cut_out(shift):
    percent, net = 50, model()
    masks = tuple(jnp.asarray(mask) for mask in channel_masks(LAYERS, LAYOUT.paths, percent, shift))
    params = apply_masks(LAYOUT, net.init(jax.random.key(3)), masks)
    rng = np.random.default_rng(shift)
    x = rng.random((3, 4, *SHAPE)).astype(np.float32)
    y = rng.integers(0, 10, (3, 4)).astype(np.int32)
    run = jax.jit(make_local_round(net, make_loss("sigmoid"), LAYOUT, LocalSettings(3, 4)))
    result = run(params, masks, x, y, jnp.float32(0.5), jax.random.key(0))
    want, losses = train(params, LAYERS, x, y, 0.5, [percent] * 3, shift)
    tiny.close(result.params, want, 1e-5)
    assert float(result.loss) == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.fixture(scope="module")
def windows():
    """(window's number, densities dispatched in it, slots' masks after it) of a run of six windows."""
    simulation = tiny.simulation("fedrolex")
    planner, state = simulation.new_planner(), simulation.init_state(simulation.init_key)
    data, seen = simulation.device_data(), []
    chunk = simulation.executable()
    for number in range(1, 7):
        planned = planner.take()
        plan = stack_rows(planned.rows, MAX_ROWS)
        state, _ = chunk(state, data, plan, np.int32(len(planned.rows)), simulation.keys)
        density_pct = {d.client: p for d, p in zip(planned.window.dispatches, planned.density_pct, strict=True)}
        masks = {c: unpack_masks(LAYOUT, tuple(bits[c] for bits in state.sent_bits)) for c in density_pct}
        seen.append((number, density_pct, masks))
        if planner.policy.decides_after(number):
            decision = planner.policy.decide(None, None)
            state, costs = simulation.prune(state, decision.density_pct)
            planner.set_costs(costs)
    return seen


def test_the_engine_sends_other_channels_in_every_window(windows):
    partial = 0
    for number, density_pct, masks in windows:
        for client, percent in density_pct.items():
            want = channel_masks(LAYERS, LAYOUT.paths, percent, number - 1)
            for got, mask in zip(masks[client], want, strict=True):
                np.testing.assert_array_equal(got, mask)
            partial += percent < 100
    assert partial >= 10


@pytest.mark.slow
def test_a_run_differs_from_heterofl_from_the_first_sub_model_on():
    rolled, fixed = tiny.run("fedrolex").of("window"), tiny.run("heterofl", local__name="sgd").of("window")
    assert rolled[0]["loss"] == fixed[0]["loss"]  # full models
    assert [w["client_bytes_down"] for w in rolled] == [w["client_bytes_down"] for w in fixed]
    assert all(one["loss"] != other["loss"] for one, other in zip(rolled[2:], fixed[2:], strict=True))


@pytest.mark.slow
def test_a_rule_of_any_kind_may_be_a_plugin():
    mine = tiny.run("fedrolex", submodel__name="tests.submodel.test_rolling:MINE")
    tiny.same(mine.params, tiny.run("fedrolex").params)
    assert mine.of("window") == tiny.run("fedrolex").of("window")

"""The rule `filters`: the channels of largest l1 norm of the present weights, and sizes of the network cut out."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from cut_channels import cut
from marked import slow, slow_except
from network_cases import network

from prfl_jax.engine.plan import MAX_ROWS, stack_rows
from prfl_jax.models.build import flat_paths
from prfl_jax.models.channel_search import find_channels
from prfl_jax.models.variables import STATE
from prfl_jax.submodel import SUBMODELS, Network
from prfl_jax.submodel.layers import layer_channels, layer_table
from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.leading import kept
from prfl_jax.submodel.masks import unpack_masks
from prfl_jax.submodel.size_from_config import model_size_from_config
from prfl_jax.system.errors import UserError
from prfl_jax.transport.costs import make_costs


def fitted(model):
    """(layout, channel groups, sub-models) of the rule for a model."""
    layout, groups = Layout.of(model.shapes(), channels=True, state=True), find_channels(model)
    size = layout.model_size(model, None, 100)
    masked = tuple(layout.paths[i] for i in layout.prunable)
    network = Network(layout.param_shapes(), size, lambda: (), lambda: groups, masked)
    return layout, groups, SUBMODELS.find("filters").fit(network, "filters")


def largest(groups, params, percent):
    """The channels that are kept, written out: float64 sums over each channel's own entries, ties by index."""
    keep = np.zeros(groups.size, bool)
    for group in groups.groups:
        scores = np.zeros(group.size)
        for path, leaf in flat_paths(params).items():
            if path.startswith(f"{STATE}/"):
                continue
            for channel in range(group.size):
                mine = np.zeros(leaf.shape, bool)
                for axis, channels in enumerate(groups.axes[path]):
                    if channels is None or not (group.recurrent or (path, axis) in group.outputs):
                        continue
                    along = [-1 if k == axis else 1 for k in range(leaf.ndim)]
                    mine |= (channels == group.first + channel).reshape(along)
                scores[channel] += np.abs(np.asarray(leaf, np.float64)[mine]).sum()
        best = sorted(range(group.size), key=lambda channel: (-scores[channel], channel))
        keep[[group.first + channel for channel in best[: kept(group.size, percent)]]] = True
    return keep


@pytest.mark.parametrize("name", slow_except(["cnn", "char_lstm", "resnet18", "resnet50", "gru"], "cnn", "char_lstm"))
def test_masks_hold_the_channels_of_largest_norm(name):
    model = network(name)
    layout, groups, submodels = fitted(model)
    params = model.init(jax.random.key(1))
    masks_of = jax.jit(lambda params, percent: submodels.masks((), jax.tree.leaves(params), percent))
    for percent in (1, 13, 50, 77, 100):
        keep = largest(groups, params, percent)
        want = groups.masks(keep)
        for path, mask in zip(layout.paths, masks_of(params, jnp.int32(percent)), strict=True):
            np.testing.assert_array_equal(mask, np.broadcast_to(want[path], mask.shape))
        small = [leaf.size for leaf in jax.tree.leaves(cut(groups, keep, params))]
        assert submodels.size.count(percent) == sum(small)
        assert submodels.size.value_bytes(percent) == 4 * sum(small)


def test_equal_scores_keep_the_first_channels():
    model = network("cnn")
    layout, groups, submodels = fitted(model)
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), model.shapes())
    masks = dict(zip(layout.paths, submodels.masks((), jax.tree.leaves(ones), jnp.int32(50)), strict=True))
    for group in groups.groups:
        bias = np.asarray(masks[f"{group.name}/bias"])
        np.testing.assert_array_equal(bias, np.arange(group.size) < kept(group.size, 50))


@pytest.mark.parametrize(("name", "width"), [("cnn", 0.25), slow("vgg19", 0.125), slow("resnet50", 0.125)])
def test_sizes_are_those_of_the_narrow_network(name, width):
    full, half = network(name, width), network(name, width / 2)
    _, _, submodels = fitted(full)
    values = half.num_parameters() + half.num_state()
    assert submodels.size.count(50) == values and submodels.size.state_count(50) == half.num_state()
    costs = make_costs(submodels.size, np.array([50, 100]), 10.0, (1e9, 1e9))
    assert costs.down_bytes[0] == costs.up_bytes[0] == 4 * values and not costs.mask_bytes.any()
    np.testing.assert_allclose(costs.compute_s, [3 * 10 * m.flop.total() / 1e9 for m in (half, full)], rtol=1e-12)


@pytest.mark.parametrize(("name", "shape"), [("conv2", (28, 28, 1)), ("vgg11", (32, 32, 3))])
def test_groups_of_tabulated_layers_are_those_traced(name, shape):
    found = find_channels(network(name, 0.05))
    table = layer_channels(layer_table(name, shape, 10, 0.05))
    assert [(g.name, g.first, g.size, g.outputs, g.recurrent) for g in table.groups] == [
        (g.name, g.first, g.size, g.outputs, g.recurrent) for g in found.groups
    ]
    assert table.axes.keys() == found.axes.keys()
    for path, axes in found.axes.items():
        for one, other in zip(axes, table.axes[path], strict=True):
            np.testing.assert_array_equal(one, other)


# --- in a run ---


class Normed(nn.Module):
    """Batch norm between two layers."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.Dense(12, name="dense0")(x.reshape(x.shape[0], -1))
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.5, name="norm")(x))
        return nn.Dense(self.classes, name="dense1")(x)


RUN = dict(submodel__name="filters", local__name="sgd", model__name=f"{__file__}:Normed", model__size_mb=None)


def holders_mean(old, models, masks, weights):
    """The mean of each value over the clients that hold it, float64; values without holders stay."""
    here = np.asarray(weights, np.float64).reshape(-1, *[1] * old.ndim) * masks
    total = here.sum(0)
    return np.where(total > 0, (here * models).sum(0) / np.where(total > 0, total, 1.0), old)


def test_a_run_sends_the_largest_present_channels():
    """Masks from the weights at each dispatch; the next model, statistics too, is the mean over who holds a value."""
    simulation = tiny.simulation("heterofl", **RUN)
    method, planner = simulation.method, simulation.new_planner()
    groups, layout = find_channels(method.model), method.layout
    state, data, partial = simulation.init_state(simulation.init_key), simulation.device_data(), {}
    chunk, statistics = simulation.executable(), 0
    for number in range(1, 4):
        params = jax.tree.map(np.array, state.params)
        planned = planner.take()
        plan = stack_rows(planned.rows, MAX_ROWS)
        state, _ = chunk(state, data, plan, np.int32(len(planned.rows)), simulation.keys)
        clients = {}
        for dispatch, percent in zip(planned.window.dispatches, planned.density_pct, strict=True):
            keep = largest(groups, params, percent)
            got = unpack_masks(layout, tuple(bits[dispatch.client] for bits in state.sent_bits))
            clients[dispatch.client] = masks = [np.asarray(mask) for mask in got]
            for path, mask in zip(layout.paths, masks, strict=True):
                np.testing.assert_array_equal(mask, np.broadcast_to(groups.masks(keep)[path], mask.shape))
            if percent < 100:
                partial.setdefault(percent, set()).add(tuple(keep.tolist()))
        (row,) = planned.rows  # every client is sent the model and arrives
        after, buffers = jax.tree.leaves(state.params), jax.tree.leaves(state.buffer)
        for k, (old, new, models) in enumerate(zip(jax.tree.leaves(params), after, buffers, strict=True)):
            masks = np.stack([clients[client][k] for client in range(len(models))])
            assert not np.asarray(models)[~masks].any()
            tiny.close(new, holders_mean(old, np.asarray(models, np.float64), masks, row.weights), 1e-6)
            if layout.paths[k].startswith(f"{STATE}/") and not masks.all():
                statistics += 1
        if planner.policy.decides_after(number):
            state, costs = simulation.prune(state, planner.policy.decide(None, None).density_pct)
            planner.set_costs(costs)
    assert any(len(kept) > 1 for kept in partial.values())  # other channels at a later dispatch
    assert statistics == 4  # mean and variance in both windows with sub-models


def test_bytes_are_those_of_the_network_cut_out():
    ran = tiny.run("heterofl", **RUN)
    seen = set()
    for window in ran.of("window"):
        sent = dict(zip([client for client, _ in window["client_bytes_down"]], window["percents"], strict=True))
        for client, down in window["client_bytes_down"]:
            units = kept(12, sent[client])
            assert down == 4 * (784 * units + units + 4 * units + units * 10 + 10)  # batch norm has four values a unit
            seen.add(units)
    assert len(seen) > 1


@pytest.mark.slow
@pytest.mark.parametrize("state", ["average", "static"])
def test_a_run_with_each_use_of_the_state_learns(state):
    ran = tiny.run("heterofl", **RUN, model__state=state, rounds=30)
    losses = [np.mean(window["loss"]) for window in ran.of("window")]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    assert np.isfinite(losses).all()


def test_statistics_of_clients_do_not_go_with_channels():
    with pytest.raises(
        UserError, match="config.model.state='local': allowed with .*'filters' is average, static"
    ) as error:
        tiny.simulation("heterofl", **RUN, model__state="local")
    assert "\n" not in str(error.value)


def test_the_clock_alone_knows_the_sizes_of_tabulated_networks():
    config = tiny.config(
        "heterofl", submodel__name="filters", model__name="conv2", model__width=0.1, model__size_mb=None
    )
    alone, (_, _, submodels) = model_size_from_config(config), fitted(network("conv2", 0.1))
    for percent in (1, 13, 50, 100):
        assert alone.value_bytes(percent) == submodels.size.value_bytes(percent)
        assert alone.flop_share(percent) == pytest.approx(submodels.size.flop_share(percent), rel=1e-12)

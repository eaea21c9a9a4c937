"""HeteroFL's sub-models: leading channels, simulated on dense arrays, against really smaller networks."""

import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from marked import slow

from prfl_jax.clock.types import Arrival
from prfl_jax.density import Evidence, make_density
from prfl_jax.engine.plan import stack_rows
from prfl_jax.local import LocalSettings
from prfl_jax.local.sgd import make_local_round
from prfl_jax.models import build_model, make_loss
from prfl_jax.models.build import flat_paths
from prfl_jax.models.scaled import scaled_model
from prfl_jax.submodel.layers import layer_table
from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.leading import kept, leading_levels, leading_size, rate
from prfl_jax.submodel.masks import apply_masks
from prfl_jax.system.errors import UserError
from prfl_jax.transport.costs import make_costs

SHAPE = (28, 28, 1)


def model(width, name="conv2", shape=SHAPE):
    cfg = types.SimpleNamespace(name=name, width=width, classes=None, init="release", loss="sigmoid")
    return build_model(cfg, shape, 10)


def test_rates_at_whole_percents_are_those_of_heterofl():
    assert [rate(p) for p in (100, 50, 25, 13, 6)] == [1, 0.5, 0.25, 0.125, 0.0625]
    assert [rate(p) for p in range(1, 101)] == sorted(rate(p) for p in range(1, 101))
    assert [kept(512, p) for p in (100, 50, 25, 13, 6, 1)] == [512, 256, 128, 64, 32, 6]
    assert kept(3, 1) == 1 and kept(100, 7) == 7


def leading(leaf, inputs, outputs, copies=1):
    """The entries of a kernel whose channels are among the first."""
    mask = np.zeros(leaf.shape, bool)
    per = leaf.shape[-2] // copies
    rows = [copy * per + c for copy in range(copies) for c in range(inputs)]
    mask[..., np.array(rows)[:, None], np.arange(outputs)[None, :]] = True
    return mask


@pytest.mark.parametrize("percent", [1, 6, 13, 25, 37, 50, 99, 100])
@pytest.mark.parametrize("name,shape", [("conv2", (28, 28, 1)), ("vgg11", (32, 32, 3))])
def test_levels_are_the_first_channels_of_every_layer(percent, name, shape):
    layers = layer_table(name, shape, 10, 0.25)
    levels = leading_levels(layers)
    inputs, before = shape[-1], shape[-1]
    for number, layer in enumerate(layers):
        whole = layer.kernel[-1]
        outputs = whole if number == len(layers) - 1 else math.ceil(round(whole * rate(percent), 9))
        kernel, bias = levels[f"{layer.name}/kernel"], levels[f"{layer.name}/bias"]
        copies = layer.kernel[-2] // before
        np.testing.assert_array_equal(kernel <= percent, leading(kernel, inputs, outputs, copies))
        np.testing.assert_array_equal(bias <= percent, np.arange(whole) < outputs)
        inputs, before = outputs, whole


@pytest.mark.parametrize("percent,width", [slow(100, 1.0), slow(50, 0.5), slow(25, 0.25), slow(13, 0.125), (6, 0.0625)])
@pytest.mark.parametrize("name,shape", [("conv2", (28, 28, 1)), slow("vgg11", (32, 32, 3))])
def test_bytes_and_flop_are_those_of_the_narrow_network(percent, width, name, shape):
    size = leading_size(layer_table(name, shape, 10, 1.0), 4.0)
    small, full = model(width, name, shape), model(1.0, name, shape)
    assert size.count(percent) == small.num_parameters() and size.count(100) == size.total
    costs = make_costs(size, np.array([percent, 100]), 100.0, (1e9, 1e9))
    assert costs.down_bytes[0] == costs.up_bytes[0] == 4 * small.num_parameters() and not costs.mask_bytes.any()
    kernels = [[f for path, f in m.leaf_flop.items() if path.endswith("kernel")] for m in (small, full)]
    flop = [sum(each) for each in kernels]  # biases are not counted for anybody
    np.testing.assert_allclose(costs.compute_s, [3 * 100 * f / 1e9 for f in flop], rtol=1e-12)
    by_density = make_costs(size, np.array([percent]), 100.0, (), "density")
    assert by_density.down_bytes[0] == 4 * small.num_parameters()


@pytest.mark.slow
@pytest.mark.parametrize("percent,width", [(50, 0.5), (25, 0.25)])
def test_training_equals_that_of_the_network_cut_out(percent, width):
    """The dense simulation and the small network alone, scaler and masked logits included, weight by weight."""
    base = 0.5  # so that the dense model is small too
    full, small = model(base), model(base * width)
    layers = layer_table("conv2", SHAPE, 10, base)
    by_path = leading_levels(layers)
    layout, small_layout = Layout.of(full.shapes(), channels=True), Layout.of(small.shapes(), prune=False)
    masks = tuple(jnp.asarray(by_path[path] <= percent) for path in layout.paths)
    params = apply_masks(layout, full.init(jax.random.key(3)), masks)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.random((3, 8, *SHAPE), np.float32))
    y = jnp.asarray(rng.integers(0, 7, (3, 8)), jnp.int32)
    present = jnp.asarray(np.arange(10) < 7)

    def cut(tree):
        """The values under the masks, in the small network's shapes."""
        pairs = zip(jax.tree.leaves(tree), masks, small_layout.shapes, strict=True)
        return jax.tree.unflatten(small_layout.treedef, [leaf[mask].reshape(shape) for leaf, mask, shape in pairs])

    def train(net, layout, params, masks):
        net = scaled_model(net, jnp.float32(rate(percent)), present)
        run = make_local_round(net, make_loss("sigmoid"), layout, LocalSettings(3, 8, momentum=0.5))
        return run(params, masks, x, y, jnp.float32(0.2), jax.random.key(0))

    dense, alone = train(full, layout, params, masks), train(small, small_layout, cut(params), ())
    assert float(dense.loss) == pytest.approx(float(alone.loss), rel=1e-5)
    tiny.close(cut(dense.params), alone.params, 1e-5)
    for leaf, mask in zip(jax.tree.leaves(dense.params), masks, strict=True):
        assert not np.asarray(leaf)[~np.asarray(mask)].any()
    # nothing is learned about labels that are not there
    outputs = flat_paths(dense.params)["dense1/bias"]
    np.testing.assert_array_equal(outputs[7:], flat_paths(params)["dense1/bias"][7:])
    assert (np.asarray(outputs[:7]) != flat_paths(params)["dense1/bias"][:7]).all()


@pytest.mark.slow
def test_the_scaler_divides_hidden_outputs_in_training_alone():
    net = model(0.1)
    params = net.init(jax.random.key(0))
    x = jnp.ones((1, *SHAPE))
    scaled = scaled_model(net, jnp.float32(0.5), jnp.ones(10, bool))
    assert not np.allclose(scaled.apply(params, x, True, None), net.apply(params, x, True, None))
    np.testing.assert_array_equal(scaled.apply(params, x, False, None), net.apply(params, x, False, None))
    hidden = 3  # two convolutions and a dense layer, without biases each scales the output
    plain = jax.tree.map(lambda leaf: leaf * (leaf.ndim > 1), params)
    np.testing.assert_allclose(
        scaled.apply(plain, x, True, None), 2.0**hidden * net.apply(plain, x, True, None), rtol=1e-5
    )


@pytest.mark.slow
def test_absent_labels_do_not_count_in_the_output_layer():
    """Two clients, each with half of the labels: each column of the output layer is that of the one that has it."""
    changes = dict(data__partition="labels", data__labels_per_client=5, clients__number=2, rounds=1)
    speeds = dict(clients__up_mb_s=(2.0, 2.0), clients__down_mb_s=(8.0, 8.0), clients__sigma=0.0, server__sigma=0.0)
    simulation = tiny.simulation("heterofl", window__dt_s=50.0, **changes, **speeds)
    data = simulation.device_data()
    present = np.asarray(data.present)
    assert present.sum(axis=1).tolist() == [5, 5] and (present.sum(axis=0) == 1).all()
    state = simulation.init_state(simulation.init_key)
    before = np.asarray(state.params["dense1"]["kernel"])
    planned = simulation.new_planner().take()
    state, _ = simulation.engine.run_chunk(state, data, stack_rows(planned.rows, 1), np.int32(1), simulation.keys)
    after, slots = np.asarray(state.params["dense1"]["kernel"]), np.asarray(state.buffer["dense1"]["kernel"])
    for client in range(2):
        np.testing.assert_allclose(after[:, present[client]], slots[client][:, present[client]], rtol=1e-6)
        np.testing.assert_array_equal(slots[client][:, ~present[client]], before[:, ~present[client]])
    other = np.asarray(state.params["conv0"]["kernel"])
    np.testing.assert_allclose(other, np.asarray(state.buffer["conv0"]["kernel"]).mean(axis=0), rtol=1e-5, atol=1e-7)


# --- tiers ---


def policy(name="tiers", tiers=(1.0, 0.5, 0.25, 0.125, 0.0625), patience=1):
    keys = dict(name=name, rule="normalised", interval=3, min_density=0.05, delta_rho=0.2, patience=patience)
    return make_density(types.SimpleNamespace(**keys, min_delta=0.0, tiers=tiers), 5)


def first_window(density, times):
    arrivals = [Arrival(c, 0, 0, 0.0, 0.0, 0.0, t, 0) for c, t in enumerate(times) if t is not None]
    density.observe(arrivals, [100] * len(arrivals))


def test_tiers_are_the_largest_rates_not_above_the_share():
    density = policy()
    assert density.decides_after(1) and not density.decides_after(2) and density.decides_after(3)
    first_window(density, [2.0, 4.0, 4.1, 15.9, 400.0])
    assert density.decide().density_pct.tolist() == [100, 50, 25, 13, 6]
    first_window(density, [50.0, 1.0, 1.0, 1.0, 1.0])  # later times change nothing
    assert density.decide().density_pct.tolist() == [100, 50, 25, 13, 6]
    saved = policy().from_state(density.to_state())
    assert saved.decide().density_pct.tolist() == [100, 50, 25, 13, 6]


def test_tiers_recover_where_a_client_stops_improving():
    density = policy("tiers_recovery")
    first_window(density, [2.0, 4.0, 4.1, 15.9, 400.0])
    assert density.decide(Evidence(np.full(5, 0.5))).density_pct.tolist() == [100, 50, 25, 13, 6]
    decision = density.decide(Evidence(np.array([0.4, 0.6, 0.4, 0.6, 0.4])))
    assert decision.triggered.tolist() == [False, False, True, False, True]
    assert decision.density_pct.tolist() == [100, 50, 45, 13, 26]


@pytest.mark.parametrize("tiers", [(), (0.0,), (1.2, 0.5)])
def test_impossible_tiers_are_refused(tiers):
    with pytest.raises(UserError, match="density.tiers"):
        policy(tiers=tiers)

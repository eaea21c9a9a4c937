"""FLOP of modules, against numbers by hand and against XLA's own count of the program with its loops written out."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from flop_nets import MODULES, NNX, SHAPE, flat, linen, weight, without_loops
from jax import lax
from marked import every_third, slow_except

from prfl_jax.models.build import wrap_linen, wrap_module
from prfl_jax.models.flop_count import count_flop
from prfl_jax.models.matmul_conv import plain_convolutions
from prfl_jax.models.product_flop import taps_met
from prfl_jax.runtime.dry_run import describe
from prfl_jax.submodel.layout import Layout
from prfl_jax.system.errors import UserError
from prfl_jax.transport.costs import make_costs


@functools.cache
def model_of(name):
    if name in NNX:
        return wrap_module(name, NNX[name], SHAPE, 10)
    return wrap_linen(name, linen(MODULES[name]), SHAPE, 10)


EACH = [*every_third([(name,) for name in MODULES]), *slow_except(NNX, "nnx convolutions")]


@pytest.mark.parametrize("name", EACH)
def test_the_count_is_xlas_with_loops_written_out(name):
    model, image = model_of(name), jax.ShapeDtypeStruct((1, *SHAPE), jnp.float32)
    with plain_convolutions():
        whole = without_loops(lambda p, x: model.apply(p, x, True, jax.random.key(0)), model.shapes(), image)
        xla = jax.jit(whole).lower(model.shapes(), image).cost_analysis()["flops"]
    counted = model.flop.total()
    assert 0.95 * xla < counted <= xla  # XLA counts sums and activations too
    assert not model.flop.unknown


# --- by hand ---


def test_flop_of_the_leaves_by_hand():
    want = {
        "transposed": {"ConvTranspose_0/kernel": 2 * (3 * 16 - 1) ** 2 * 8 * 16},  # one tap in 48 falls off each way
        "depthwise": {"Conv_0/kernel": 2 * 9 * 1 * 32 * 14 * 14},
        "dilated": {"Conv_0/kernel": 2 * 9 * 8 * 64 * 10 * 10},
        "attention": {
            **{f"MultiHeadDotProductAttention_0/{part}/kernel": 2 * 16 * 128 * 128 for part in ("key", "query", "out")},
            "": 2 * 2 * 16 * 16 * 128,  # q k^T, and softmax v
        },
        "GRU": {f"GRUCell_0/h{gate}/kernel": 16 * 2 * 96 * 96 for gate in "rzn"},
        "scan over layers": {"ScanBlock_0/Dense_0/kernel": 6 * 2 * 128 * 128},
        "ensemble": {"VmapConv_0/kernel": 3 * 2 * 9 * 8 * 32 * 14 * 14},
        "twice": {"Dense_0/kernel": 2 * 16 * 2 * 128 * 128},
        "loops": {"w": (3 + 5 + 1) * 2 * 128 * 128},
        "tied": {"Embed_0/embedding": 2 * 256 * 10, "Dense_0/kernel": 2 * 16 * 256 * 256},
        "standardised": {"kernel": 2 * 9 * 8 * 32 * 16 * 16, "gain": 0},
        "nnx convolutions": {"two/kernel": 2 * (14 * 3) ** 2 * 32 * 16},
        "nnx scan over layers": {"layers/kernel": 4 * 2 * 128 * 128},
    }
    for name, leaves in want.items():
        flop = model_of(name).flop
        assert {leaf: {**flop.by_leaf(), "": flop.rest_at()}[leaf] for leaf in leaves} == leaves, name


def test_products_of_parameters_alone_are_made_once_for_a_batch():
    flop = model_of("low rank").flop
    each, once = 2 * 2048 * 64, 2 * 2048 * 4 * 64
    shares = {"a": 2048 / (2048 + 64), "b": 64 / (2048 + 64)}  # both are read by both products
    for batch in (1, 20):
        leaves = flop.by_leaf(batch)
        assert leaves["Dense_0/kernel"] == 2 * 64 * 10
        for path, share in shares.items():
            assert leaves[path] == pytest.approx(share * (each + once / batch), rel=1e-12)
        assert flop.total(batch) == pytest.approx(2 * 64 * 10 + each + once / batch, rel=1e-12)


class LinenConv(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.classes)(flat(nn.relu(nn.Conv(8, (3, 3))(x))))


class NnxConv(nnx.Module):
    def __init__(self, classes, *, rngs):
        self.conv = nnx.Conv(1, 8, (3, 3), rngs=rngs)
        self.out = nnx.Linear(28 * 28 * 8, classes, rngs=rngs)

    def __call__(self, x):
        return self.out(flat(nnx.relu(self.conv(x))))


@pytest.mark.slow
def test_a_same_convolution_counts_the_border_in_full():
    """As the tables of the built-in networks do; of XLA's count that is the one of an image with its border."""
    counts = [wrap_module("it", module, (28, 28, 1), 10).leaf_flop for module in (LinenConv, NnxConv)]
    assert counts[0]["Conv_0/kernel"] == counts[1]["conv/kernel"] == 112_896
    assert counts[0]["Dense_0/kernel"] == counts[1]["out/kernel"] == 2 * 28 * 28 * 8 * 10
    assert counts[0]["Conv_0/bias"] == counts[1]["conv/bias"] == 0
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 28, 28, 1), (1, 30, 30, 1), (3, 3, 1, 8))]
    numbers = ("NHWC", "HWIO", "NHWC")

    def xla(image, padding):
        conv = jax.jit(lambda x, k: lax.conv_general_dilated(x, k, (1, 1), padding, dimension_numbers=numbers))
        return conv.lower(image, shapes[2]).cost_analysis()["flops"]

    assert xla(shapes[1], "VALID") == 112_896 and xla(shapes[0], "SAME") == 2 * (3 * 28 - 2) ** 2 * 8


@pytest.mark.parametrize("spread,stride,dilation,before,after", [(2, 1, 1, 1, 1), (2, 1, 2, 4, 3), (3, 2, 1, 2, 5)])
def test_taps_met_against_an_image_of_ones(spread, stride, dilation, before, after):
    size, taps = 7, 3
    row = np.zeros(before + (size - 1) * spread + 1 + after)
    row[before : before + (size - 1) * spread + 1 : spread] = 1
    places = (len(row) - (taps - 1) * dilation - 1) // stride + 1
    met = sum(row[place * stride + tap * dilation] for place in range(places) for tap in range(taps))
    assert taps_met(size, taps, places, stride, before, spread, dilation) == met


# --- which leaf a product belongs to, of [2, 16] images and a leaf w [16, 16] ---

X, W, STACK = ((2, 16), (16, 16), (3, 16, 16))
ONE = 2 * 16 * 16  # FLOP of an image with w


@jax.custom_vjp
def own_product(x, w):
    return x @ w


own_product.defvjp(lambda x, w: (x @ w, (x, w)), lambda kept, g: (g @ kept[1].T, kept[0].T @ g))


def leaves_of(**shapes):
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}


def count(function, **shapes):
    """`function(x, *leaves)` on images `[2, 16]`."""
    image = jax.ShapeDtypeStruct(X, jnp.float32)
    return count_flop(lambda leaves, _, x: function(x, *leaves), leaves_of(**(shapes or {"w": W})), {}, image)


def until(test, step, start):
    """A loop that multiplies by w while `test(i)`, i from `start` on by `step`."""

    def function(x, w):
        return lax.while_loop(lambda s: test(s[0]), lambda s: (step(s[0]), jnp.tanh(s[1] @ w)), (start, x))[1]

    return function


def in_steps(x, w):
    def turn(carry, _):
        return (carry[0] @ carry[1], carry[1] * 0.9), None

    return lax.scan(turn, (x, w), None, length=3)[0][0]


def sharded(x, w):
    mesh = jax.make_mesh((1,), ("a",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec()
    return jax.shard_map(lambda x, w: x @ w, mesh=mesh, in_specs=(spec, spec), out_specs=spec)(x, w)


@pytest.mark.parametrize(
    "function,times",
    [
        (lambda x, w: x @ w.T.astype(jnp.bfloat16).astype(jnp.float32), 1),
        (lambda x, w: x @ (w * jax.random.bernoulli(jax.random.key(0), 0.5, W)), 1),
        (lambda x, w: x @ jnp.where(x[0, 0] > 0, w, 0.0), 1),
        (lambda x, w: jax.vmap(lambda row: w @ row)(x), 1),
        (lambda x, w: lax.map(lambda row: w @ row, x), 1),
        (lambda x, w: jnp.matmul(*lax.optimization_barrier((x, w))), 1),
        (lambda x, w: own_product(x, w), 1),
        (lambda x, w: jax.jit(jax.checkpoint(lambda x, w: jnp.sin(x @ w) @ w))(x, w), 2),
        (lambda x, w: (x @ w, x)[1], 0),  # nobody needs it
        (lambda x, w: jax.jit(lambda x, w: (x @ w, x))(x, w)[1], 0),
        (lambda x, w: x[:, :, None] * w, 0),  # no product of matrices
        (lambda x, w: lax.cond(x.sum() > 0, lambda: x @ w @ w @ w, lambda: x @ w), 3),  # the dearest branch
        (lambda x, w: lax.switch(1, [lambda: x @ w @ w, lambda: x @ w]), 1),
        (lambda x, w: lax.fori_loop(np.int32(2), np.int32(6), lambda i, x: x @ w, x), 4),
        (until(lambda i: i < 5, lambda i: i + 1, 0), 5),
        (until(lambda i: i > 1, lambda i: i // 2, 16), 4),
        (until(lambda t: t < 1.0, lambda t: t + 0.25, 0.0), 4),
        (lambda x, w: jax.jit(until(lambda i: i < 3, lambda i: jax.jit(jnp.add)(i, 1), 0))(x, w), 3),
        (in_steps, 3),
        (sharded, 1),
    ],
)
def test_a_product_belongs_to_the_leaf_whatever_is_done_before(function, times):
    flop = count(function)
    assert (flop.by_leaf(), flop.rest, flop.unknown) == ({"w": times * ONE}, (0, 0), ())


@pytest.mark.parametrize(
    "function,shapes,want",
    [
        (lambda x, w: lax.scan(lambda x, w: (x @ w, None), x, w)[0], {"w": STACK}, {"w": 3 * ONE}),
        (lambda x, w: lax.fori_loop(0, 3, lambda i, x: x @ w[i], x), {"w": STACK}, {"w": 3 * ONE}),
        (lambda x, a, b: x @ jnp.concatenate([a, b], 1), {"a": W, "b": (16, 32)}, {"a": ONE, "b": 2 * ONE}),
        (lambda x, w, v: x @ (w / jnp.linalg.norm(w) * v), {"w": W, "v": (16,)}, {"w": ONE, "v": 0}),
        (lambda x, w, b: x @ w + b, {"w": W, "b": (16,)}, {"w": ONE, "b": 0}),
        (lambda x, v: x @ v, {"v": (16,)}, {"v": 2 * 16}),
        # an expert that the images choose; words that they name, which are images' values from then on
        (lambda x, w: jnp.einsum("bi,bio->bo", x, w[jnp.argmax(x, 1) % 3]), {"w": STACK}, {"w": ONE}),
        (lambda x, e, w: e[(x[:, 0] > 0).astype(int)] @ w, {"e": (9, 16), "w": W}, {"e": 0, "w": ONE}),
        (lambda x, w: lax.ragged_dot(x, w, jnp.array([1, 1, 0])), {"w": STACK}, {"w": ONE}),
        # what no mask discounts
        (lambda x, w: jnp.einsum("bi,bio->bo", x, w * x[:, None, :]), {"w": W}, {"w": 0, "": ONE}),
        (lambda x, w: (x @ jnp.ones(W)) * w[0], {"w": W}, {"w": 0, "": ONE}),
        (lambda x, w: jnp.fft.fft(x).real @ w, {"w": W}, {"w": ONE, "": 5 * 16 * 4}),
        (lambda x, w: jnp.fft.rfft(x).real @ w, {"w": (9, 16)}, {"w": 2 * 9 * 16, "": 2.5 * 16 * 4}),
    ],
)
def test_which_leaf_a_product_belongs_to(function, shapes, want):
    flop = count(function, **shapes)
    assert flop.by_leaf(2) | ({"": flop.rest_at(2)} if "" in want else {}) == want
    assert not flop.unknown and ("" in want or flop.rest == (0, 0))


def unlike_any_known(x, w):
    return lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ w, x)


@pytest.mark.parametrize(
    "function,says",
    [
        (unlike_any_known, "a while loop whose number of turns"),
        (lambda x, w: lax.fori_loop(0, jnp.argmax(x[0]), lambda i, x: x @ w, x), "a while loop"),
        (until(lambda i: i < 10**7, lambda i: i + 1, 0), "a while loop"),
        (lambda x, w: x @ jnp.linalg.cholesky(w), "cholesky"),
        (lambda x, w: x @ jnp.linalg.qr(w)[0], "qr"),
        (lambda x, w: jnp.linalg.solve(w, x.T), "lu"),
        (lambda x, w: jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct(X, x.dtype), x) @ w, "pure_callback"),
    ],
)
def test_what_cannot_be_counted_is_named(function, says):
    assert says in count(function).unknown[0]
    assert not count(lambda x, w: (function(x, w), x @ w)[1]).unknown  # unless nobody needs it


def test_loops_without_products_may_run_as_they_like():
    flop = count(lambda x, w: lax.while_loop(lambda x: x.sum() < 9, lambda x: x * 2, x) @ w)
    assert flop.by_leaf() == {"w": ONE} and not flop.unknown


# --- what the clock makes of it ---


class Attends(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.MultiHeadDotProductAttention(2)(x[..., 0])
        return nn.Dense(self.classes)(flat(x))


class Whitened(nn.Module):
    """With a product that cannot be counted."""

    classes: int

    @nn.compact
    def __call__(self, x):
        w = weight(self, "w", 10, 10)
        return nn.Dense(10)(flat(x)) @ jnp.linalg.cholesky(w @ w.T + jnp.eye(10))


@pytest.mark.slow
def test_masks_discount_leaves_and_not_the_rest():
    model = wrap_module("it", Attends, (28, 28, 1), 10)
    size = Layout.of(model.shapes()).model_size(model, None, 5, 20)
    rest, leaves = 2 * 2 * 28 * 28 * 28, 4 * 2 * 28 * 28 * 28 + 2 * 28 * 28 * 10
    assert (size.rest_flop, sum(size.layer_flop)) == (rest, leaves)
    costs = make_costs(size, np.array([100, 50]), 40, (1e6, 1e6))
    np.testing.assert_allclose(costs.compute_s, 3 * 40 / 1e6 * np.array([rest + leaves, rest + leaves / 2]), rtol=1e-12)
    full = Layout.of(model.shapes(), prune=False).model_size(model, None, 100, 20)
    np.testing.assert_allclose(make_costs(full, np.array([100, 100]), 40, (1e6, 1e6)).compute_s, costs.compute_s[0])


@pytest.mark.parametrize("strategy", slow_except(["prfl", "fedavg"], "fedavg"))
def test_one_network_in_two_libraries_takes_the_same_time(strategy):
    def costs(name):
        simulation = tiny.simulation(
            strategy, model__name=f"tests.models.test_flop_count:{name}", clients__flop_s=(1e6,) * 4
        )
        return simulation.costs(np.array([100, 50, 10, 100]) if strategy == "prfl" else np.full(4, 100))

    linen_costs, nnx_costs = costs("LinenConv"), costs("NnxConv")
    assert linen_costs.compute_s.tolist() == nnx_costs.compute_s.tolist()
    assert linen_costs.compute_s[0] == 3 * 20 * (112_896 + 125_440) / 1e6


@pytest.mark.slow
def test_pruned_layers_are_discounted_by_what_each_holds():
    simulation = tiny.simulation(model__name="tests.models.test_flop_count:Attends", clients__flop_s=(1e6,) * 4)
    state, density_pct = simulation.init_state(jax.random.key(0)), np.array([100, 50, 30, 10])
    state, costs = simulation.prune(state, density_pct)
    size, layout = simulation.method.size, simulation.method.layout
    for client, percent in enumerate(density_pct.tolist()):
        share = [(np.asarray(level) <= percent).mean() for level in state.levels]
        flop = size.rest_flop + np.dot(share, size.layer_flop)
        assert costs.compute_s[client] == pytest.approx(3 * 20 * flop / 1e6, rel=1e-9)
    assert len(layout.prunable) == len(size.layer_flop)


def test_uncountable_modules_are_refused_with_flop_s_alone():
    changes = {"model__name": "tests.models.test_flop_count:Whitened"}
    assert tiny.simulation(**changes).method.model.flop.unknown
    with pytest.raises(UserError, match="config.clients.flop_s: the FLOP of '.*Whitened' cannot be counted") as caught:
        tiny.simulation(**changes, clients__flop_s=(1e6,) * 4)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="config.clients.flop_s"):
        describe(tiny.config(**changes, clients__flop_s=(1e6,) * 4))

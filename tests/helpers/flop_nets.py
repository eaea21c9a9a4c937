"""Modules whose products are counted, and the program of one with its loops written out."""

import contextlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal, jaxprs_in_params

from prfl_jax.models.flop_count import scan_operands

SHAPE = (16, 16, 8)


def flat(x):
    return x.reshape(x.shape[0], -1)


def rows(x):
    """Images as sequences of their rows, `[B, 16, 128]`."""
    return x.reshape(x.shape[0], x.shape[1], -1)


def around(x):
    """A border of one zero, so that a VALID 3x3 convolution keeps the size and XLA counts all its taps."""
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def linen(function):
    """A linen module of a function of images, inside which layers may be made."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return function(self, x)

    return Net()


def weight(module, name, *shape):
    return module.param(name, nn.initializers.normal(), shape)


class Block(nn.Module):
    """Of a scan over layers."""

    @nn.compact
    def __call__(self, x, _):
        return nn.relu(nn.Dense(128)(x)), None


def standardised(module, x):
    """A convolution whose kernel is standardised, cast and scaled before it is used."""
    kernel, gain = weight(module, "kernel", 3, 3, 8, 32), weight(module, "gain", 32)
    kernel = (kernel - kernel.mean((0, 1, 2))) / (kernel.std((0, 1, 2)) + 1e-5) * gain
    kernel = kernel.astype(jnp.bfloat16).astype(jnp.float32)
    x = lax.conv_general_dilated(around(x), kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return nn.Dense(10)(x.mean((1, 2)))


class NnxAttention(nnx.Module):
    def __init__(self, *, rngs):
        self.attention = nnx.MultiHeadAttention(4, 128, decode=False, rngs=rngs)
        self.out = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x):
        return self.out(self.attention(rows(x)).mean(1))


class NnxConvs(nnx.Module):
    def __init__(self, *, rngs):
        self.one = nnx.Conv(8, 32, (3, 3), padding="VALID", rngs=rngs)
        self.two = nnx.ConvTranspose(32, 16, (3, 3), strides=(2, 2), padding="VALID", rngs=rngs)
        self.out = nnx.Linear(29 * 29 * 16, 10, rngs=rngs)

    def __call__(self, x):
        return self.out(flat(self.two(nnx.relu(self.one(x)))))


class NnxLayers(nnx.Module):
    """Four layers, stacked by `nnx.vmap` and run by `nnx.scan`."""

    def __init__(self, *, rngs):
        @nnx.split_rngs(splits=4)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def layers(rngs):
            return nnx.Linear(128, 128, rngs=rngs)

        self.layers = layers(rngs)
        self.out = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x):
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def through(x, layer):
            return nnx.relu(layer(x))

        return self.out(through(rows(x)[:, 0], self.layers))


class NnxRnn(nnx.Module):
    def __init__(self, *, rngs):
        self.rnn = nnx.RNN(nnx.GRUCell(128, 96, rngs=rngs), rngs=rngs)
        self.out = nnx.Linear(96, 10, rngs=rngs)

    def __call__(self, x):
        return self.out(self.rnn(rows(x))[:, -1])


def low_rank(module, x):
    a, b = weight(module, "a", 2048, 4), weight(module, "b", 4, 64)
    return nn.Dense(10)(flat(x) @ (a @ b))


def twice(module, x):
    shared = nn.Dense(128)
    return nn.Dense(10)(shared(nn.relu(shared(rows(x)))).mean(1))


def raw(module, x):
    w = weight(module, "w", 4, 128, 32)
    return nn.Dense(10)(flat(jnp.einsum("brc,hcd->bhrd", rows(x), w)))


def unrolled(module, x):
    """Through a `while` whose counter is known, `fori_loop` and `lax.map`, each with a product inside."""
    w = weight(module, "w", 128, 128)
    x = rows(x)[:, 0]
    _, x = lax.while_loop(lambda state: state[0] < 3, lambda state: (state[0] + 1, jnp.tanh(state[1] @ w)), (0, x))
    x = lax.fori_loop(0, 5, lambda i, x: jnp.tanh(x @ w), x)
    return nn.Dense(10)(lax.map(lambda row: row @ w, x))


def scanned(module, x):
    layers = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=6)
    x, _ = layers()(rows(x)[:, 0], None)
    return nn.Dense(10)(x)


def ensemble(module, x):
    members = nn.vmap(
        nn.Conv, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, out_axes=0, axis_size=3
    )
    return nn.Dense(10)(flat(members(32, (3, 3), padding="VALID")(x).mean(0)))


def tied(module, x):
    """An embedding that is also the last layer."""
    embed = nn.Embed(10, 256)
    tokens = (flat(x)[:, :16] > 0).astype(jnp.int32)
    return embed.attend(nn.Dense(256)(embed(tokens)).mean(1))


def row_cells(cell):
    return lambda module, x: nn.Dense(10)(nn.RNN(cell(96))(rows(x))[:, -1])


MODULES = {
    "linen conv": lambda module, x: nn.Dense(10)(flat(nn.relu(nn.Conv(32, (3, 3), padding="VALID")(around(x))))),
    "strided": lambda module, x: nn.Dense(10)(flat(nn.Conv(64, (3, 3), strides=2, padding="VALID")(x))),
    "dilated": lambda module, x: nn.Dense(10)(flat(nn.Conv(64, (3, 3), kernel_dilation=3, padding="VALID")(x))),
    "grouped": lambda module, x: nn.Dense(10)(flat(nn.Conv(32, (3, 3), feature_group_count=4, padding="VALID")(x))),
    "depthwise": lambda module, x: nn.Dense(10)(flat(nn.Conv(32, (3, 3), feature_group_count=8, padding="VALID")(x))),
    "1-D": lambda module, x: nn.Dense(10)(flat(nn.Conv(64, (3,), padding="VALID")(rows(x)))),
    "3-D": lambda module, x: nn.Dense(10)(flat(nn.Conv(16, (3, 3, 3), padding="VALID")(x[..., None]))),
    "circular": lambda module, x: nn.Dense(10)(flat(nn.Conv(32, (3, 3), padding="CIRCULAR")(x))),
    "transposed": lambda module, x: nn.Dense(10)(flat(nn.ConvTranspose(16, (3, 3), strides=(2, 2))(x))),
    "transposed, 4 apart": lambda module, x: nn.Dense(10)(flat(nn.ConvTranspose(16, (5, 5), (4, 4), "VALID")(x))),
    "local": lambda module, x: nn.Dense(10)(flat(nn.ConvLocal(16, (3, 3), padding="VALID")(x))),
    "attention": lambda module, x: nn.Dense(10)(nn.MultiHeadDotProductAttention(4)(rows(x)).mean(1)),
    "LSTM": row_cells(nn.OptimizedLSTMCell),
    "another LSTM": row_cells(nn.LSTMCell),
    "GRU": row_cells(nn.GRUCell),
    "scan over layers": scanned,
    "ensemble": ensemble,
    "remat": lambda module, x: nn.Dense(10)(nn.remat(nn.Dense)(256)(flat(x))),
    "jit": lambda module, x: nn.Dense(10)(nn.jit(nn.Dense)(256)(flat(x))),
    "DenseGeneral": lambda module, x: nn.DenseGeneral(10, axis=(1, 2, 3))(x),
    "Einsum": lambda module, x: nn.Dense(10)(nn.Einsum((128, 64), "brc,cd->brd")(rows(x)).mean(1)),
    "einsum": raw,
    "twice": twice,
    "loops": unrolled,
    "low rank": low_rank,
    "tied": tied,
    "standardised": standardised,
}
NNX = {
    "nnx convolutions": NnxConvs,
    "nnx attention": NnxAttention,
    "nnx scan over layers": NnxLayers,
    "nnx GRU": NnxRnn,
}


def plain_number(value):
    dtype = getattr(value, "dtype", np.dtype(float))
    return not isinstance(value, jax.core.Tracer) and np.shape(value) == () and isinstance(dtype, np.dtype)


def with_border(equation, ins):
    """(operands, parameters) of a convolution whose zeros around the image are pixels, whose taps XLA then counts."""
    numbers, padding = equation.params["dimension_numbers"], equation.params["padding"]
    border = [(0, 0, 0)] * ins[0].ndim
    for axis, (before, after) in zip(numbers.lhs_spec[2:], padding, strict=True):
        border[axis] = (before, after, 0)
    return [lax.pad(ins[0], jnp.zeros((), ins[0].dtype), border), ins[1]], {
        **equation.params,
        "padding": ((0, 0),) * len(padding),
    }


def without_loops(function, *shapes, borders=False):
    """`function` with every turn of every loop written out, and with `borders` all images with their border."""
    closed = jax.make_jaxpr(function)(*shapes)

    def run(jaxpr, consts, args):
        env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

        def read(var):
            return var.val if isinstance(var, Literal) else env[var]

        for equation in jaxpr.eqns:
            ins, params = [read(var) for var in equation.invars], equation.params
            name, inner = equation.primitive.name, list(jaxprs_in_params(params))
            if name == "scan":
                fixed, carried = scan_operands(equation)
                body, carry, each = params["jaxpr"], ins[fixed:][:carried], []
                for turn in range(params["length"])[:: -1 if params["reverse"] else 1]:
                    xs = [x[turn] for x in ins[fixed + carried :]]
                    outs = run(body.jaxpr, body.consts, [*ins[:fixed], *carry, *xs])
                    carry, each = outs[:carried], [*each, outs[carried:]]
                outs = [*carry, *(jnp.stack(ys) for ys in zip(*each, strict=True))]
            elif name == "while":  # no test of these modules' loops reads anything but what is carried
                test, body, used = params["cond_jaxpr"], params["body_jaxpr"], params["body_nconsts"]
                outs = ins[used:]
                while run(test.jaxpr, test.consts, outs)[0]:
                    outs = run(body.jaxpr, body.consts, [*ins[:used], *outs])
            elif len(inner) == 1 and len(inner[0].invars) == len(ins) and name != "reduce_window":
                closed = next((p for p in params.values() if isinstance(p, ClosedJaxpr)), None)
                outs = run(inner[0], closed.consts if closed else [], ins)
            else:
                if borders and name == "conv_general_dilated":
                    ins, params = with_border(equation, ins)
                with (
                    jax.ensure_compile_time_eval() if all(map(plain_number, ins)) else contextlib.nullcontext()
                ):  # counters of loops
                    outs = equation.primitive.bind(*ins, **params)
                outs = outs if equation.primitive.multiple_results else [outs]
            env.update(zip(equation.outvars, outs, strict=True))
        return [read(var) for var in jaxpr.outvars]

    return lambda *args: run(closed.jaxpr, closed.consts, jax.tree.leaves(args))

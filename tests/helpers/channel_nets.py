"""Modules whose channels are followed, of images `flop_nets.SHAPE`."""

import flax.linen as nn
import jax.numpy as jnp
from flop_nets import SHAPE, flat, linen, weight
from jax import lax

from prfl_jax.models.build import wrap_linen


def by_place(x):
    """Images as rows of pixels, `[B, H W, C]`."""
    return x.reshape(x.shape[0], -1, x.shape[-1])


def gated(module, x):
    """A gated linear unit: an output of each half goes with one of the other."""
    a, b = jnp.split(nn.Dense(12)(flat(x)), 2, axis=-1)
    return nn.Dense(10)(a * nn.sigmoid(b))


def squeezed(module, x):
    """Channels weighted by what two dense layers make of their means."""
    x = nn.relu(nn.Conv(6, (3, 3))(x))
    weights = nn.sigmoid(nn.Dense(6)(nn.relu(nn.Dense(4)(x.mean((1, 2))))))
    return nn.Dense(10)((x * weights[:, None, None]).mean((1, 2)))


def separable(module, x):
    x = nn.Conv(6, (1, 1))(x)
    return nn.Dense(10)(flat(nn.relu(nn.Conv(6, (3, 3), feature_group_count=6)(x))))


def grouped(module, x):
    x = nn.relu(nn.Conv(8, (3, 3))(x))
    return nn.Dense(10)(nn.relu(nn.Conv(12, (3, 3), feature_group_count=2)(x)).mean((1, 2)))


def shortcut(module, x):
    """A residual sum of 4 and 6 channels, the narrower one padded with zeros."""
    x = nn.relu(nn.Conv(4, (3, 3), name="narrow")(x))
    h = nn.Conv(6, (3, 3), name="wide")(x)
    return nn.Dense(10, name="out")((h + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (1, 1)))).mean((1, 2)))


def dense_net(module, x):
    """Layers that read all layers before them."""
    a = nn.relu(nn.Conv(4, (3, 3), name="a")(x))
    b = nn.relu(nn.Conv(6, (3, 3), name="b")(jnp.concatenate([x, a], -1)))
    return nn.Dense(10, name="out")(jnp.concatenate([x, a, b], -1).mean((1, 2)))


def shuffled(module, x):
    x = nn.relu(nn.Conv(6, (3, 3))(x))
    x = x.reshape(*x.shape[:3], 2, 3).swapaxes(3, 4).reshape(x.shape)[..., jnp.array([5, 3, 1, 0, 2, 4])]
    return nn.Dense(10)(jnp.tile(x, (1, 1, 1, 2)).mean((1, 2)))


def added_to_images(module, x):
    return nn.Dense(10, name="out")(
        (x + nn.Conv(8, (3, 3), name="conv")(nn.Conv(4, (1, 1), name="one")(x))).mean((1, 2))
    )


def mixing(module, x):
    """A kernel over places, each channel by itself: the places stay whole."""
    x = nn.Dense(6, name="x")(by_place(x))
    over = nn.gelu(nn.Dense(5, name="over")(x.swapaxes(1, 2)))
    return nn.Dense(10, name="out")((x + nn.Dense(256, name="back")(over).swapaxes(1, 2)).mean(1))


def by_hand(module, x):
    """A recurrent layer without a loop, from a state that is learned."""
    x, again = nn.Dense(6, name="in")(by_place(x)), weight(module, "again", 6, 6)
    h = jnp.broadcast_to(weight(module, "first", 6), (x.shape[0], 6))
    for step in range(3):
        h = jnp.tanh(x[:, step] + h @ again)
    return nn.Dense(10, name="out")(h)


def adapted(module, x):
    """A kernel with an addend of low rank and a gain."""
    h = nn.sigmoid(nn.Dense(6, name="hidden")(flat(x)))
    kernel = (weight(module, "w", 6, 5) + weight(module, "a", 6, 2) @ weight(module, "b", 2, 5)) * weight(
        module, "g", 5
    )
    return nn.Dense(10, name="out")(nn.relu(h @ kernel))


# --- of any width ---


def tied(width):
    """A language model whose embedding is its last layer too."""

    def function(module, x):
        embed = nn.Embed(10, width)
        tokens = (flat(x)[:, :16] > 0).astype(jnp.int32)
        return embed.attend(nn.relu(nn.Dense(width)(embed(tokens))).mean(1))

    return wrap_linen("tied", linen(function), SHAPE, 10)


def attending(width):
    """One head: queries and keys lose the same numbers, values others."""

    def function(module, x):
        x = nn.Dense(width, name="x")(by_place(x))
        q, k, v = (nn.Dense(size, name=name)(x) for size, name in ((2 * width, "q"), (2 * width, "k"), (width, "v")))
        scores = q @ k.swapaxes(1, 2) / 4.0
        return nn.Dense(10, name="out")((nn.softmax(scores) @ v).mean(1))

    return wrap_linen("attending", linen(function), SHAPE, 10)


# --- refused ---


def normed(module, x):
    return nn.Dense(10)(nn.LayerNorm(name="norm")(nn.Dense(6, name="hidden")(flat(x))))


def by_mean(module, x):
    """Channels over their mean."""
    h = nn.Dense(6, name="hidden")(flat(x))
    return nn.Dense(10)(h / h.mean(-1, keepdims=True))


def beside_one(module, x):
    """A kernel that is the identity and its weights: it reads what is removed."""
    return nn.Dense(10)(nn.Dense(6, name="hidden")(flat(x)) @ (weight(module, "w", 6, 6) + jnp.eye(6)))


def positive(module, x):
    """Queries and keys that are not 0 where they are removed."""
    x = nn.Dense(6, name="x")(by_place(x))
    q, k = (nn.softplus(nn.Dense(4, name=name)(x)) for name in ("q", "k"))
    return nn.Dense(10)((q @ k.swapaxes(1, 2) @ x).mean(1))


def decided(module, x):
    """One channel decides about a branch for all samples."""
    h = nn.Dense(6, name="hidden")(flat(x))
    return nn.Dense(10)(lax.cond(h[0, 3] > 0, jnp.tanh, nn.relu, h))


def scaled_by_one(module, x):
    """One weight of a bias multiplies all channels."""
    bias = weight(module, "bias", 6)
    return nn.Dense(10)((nn.Dense(6, name="hidden")(flat(x)) + bias) * bias[3])


def looked_up(module, x):
    """One channel says which row of a table is read."""
    h = nn.Dense(6, name="hidden")(flat(x))
    return nn.Dense(10)(h) + weight(module, "table", 4, 10)[(h[:, 2] > 0).astype(int)]

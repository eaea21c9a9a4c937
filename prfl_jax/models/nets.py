"""Conv2 and VGG-11, the two networks of the PR-FL paper (section IV-A), as Flax linen modules.

Conv2 is LEAF's FEMNIST network, 6,603,710 parameters with 62 outputs; VGG-11 with
two hidden dense layers of 512, 9,750,922 parameters with 10 outputs.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax

from prfl_jax.models.architectures import ARCHITECTURES, Architecture, scaled
from prfl_jax.models.choices import INITS
from prfl_jax.models.matmul_conv import matmul_conv
from prfl_jax.models.products import dot_general


def max_pool2(x: jax.Array) -> jax.Array:
    """2x2 max-pool with stride 2 of `[B, H, W, C]`, odd edges dropped.

    As a reduction over a reshaped array: its gradient is a compare and a select, where
    `reduce_window`'s is a select-and-scatter that costs a fifth of a training step on CPU.

    Raises:
      ValueError: nothing would be left of the image.
    """
    b, h, w, c = x.shape
    if h < 2 or w < 2:
        raise ValueError(f"2x2 pooling of {h}x{w}: the image is too small")
    x = x[:, : h // 2 * 2, : w // 2 * 2]
    return x.reshape(b, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))


def conv(
    x: jax.Array, features: int, size: int | tuple[int, int], init: str, name: str, stride: int = 1, bias: bool = True
) -> jax.Array:
    """A convolution with padding SAME.

    Args:
      x: `[B, H, W, C]`.
      size: of the kernel, one side or both.
      init: a choice of `model.init`.
    """
    sides = (size, size) if isinstance(size, int) else size
    bound, choice = 1.0 / math.sqrt(math.prod(sides) * x.shape[-1]), INITS.find(init)
    return nn.Conv(
        features,
        sides,
        stride,
        padding="SAME" if stride == 1 else [((side - 1) // 2, (side - 1) // 2) for side in sides],
        use_bias=bias,
        kernel_init=choice.kernel(bound),
        bias_init=choice.conv_bias(bound),
        conv_general_dilated=matmul_conv,
        name=name,
    )(x)


def dense(x: jax.Array, features: int, init: str, release_bound: float, name: str) -> jax.Array:
    """A dense layer with zero bias; `release_bound` is the release's uniform bound for its kernel."""
    kernel_init = INITS.find(init).kernel(release_bound)
    return nn.Dense(features, kernel_init=kernel_init, dot_general=dot_general, name=name)(x)


def dense_by_size(x: jax.Array, features: int, init: str, name: str) -> jax.Array:
    """A dense layer whose first weights are bounded by its inputs, as PyTorch's are."""
    return dense(x, features, init, 1.0 / math.sqrt(x.shape[-1]), name)


def convolutions(x: jax.Array, plan: Architecture, width: float, init: str) -> jax.Array:
    """All convolutions and poolings of a network, flattened: `[B, H, W, C]` to `[B, features]`."""
    for i, (channels, pool) in enumerate(plan.channels):
        x = nn.relu(conv(x, scaled(channels, width), plan.kernel, init, f"conv{i}"))
        x = max_pool2(x) if pool else x
    return x.reshape(x.shape[0], -1)


class Conv2(nn.Module):
    """Two 5x5 convolutions (32, 64), each with a 2x2 max-pool, a dense layer of 2048, the output.

    Attributes:
      classes: outputs.
      width: multiplies the hidden widths.
      init_name: release (dense bound sqrt(6 / fan_out): 0.054 and 0.31 at full size) | he | flax.
    """

    classes: int = 62
    width: float = 1.0
    init_name: str = "release"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images `[B, 28, 28, 1]` to logits `[B, classes]`."""
        plan = ARCHITECTURES["conv2"]
        x = convolutions(x, plan, self.width, self.init_name)
        hidden = scaled(plan.hidden[0], self.width)
        x = nn.relu(dense(x, hidden, self.init_name, math.sqrt(6.0 / hidden), "dense0"))
        return dense(x, self.classes, self.init_name, math.sqrt(6.0 / self.classes), "dense1")


class VGG11(nn.Module):
    """VGG-11 without normalisation, then dense 512, 512 and the output.

    Attributes:
      classes: outputs.
      width: multiplies the hidden widths.
      init_name: release (dense bound sqrt(6 / fan_in), the last sqrt(6 / (3.25 fan_out))) | he | flax.
    """

    classes: int = 10
    width: float = 1.0
    init_name: str = "release"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images `[B, 32, 32, 3]` to logits `[B, classes]`."""
        plan = ARCHITECTURES["vgg11"]
        x = convolutions(x, plan, self.width, self.init_name)
        for i, units in enumerate(plan.hidden):
            bound = math.sqrt(6.0 / x.shape[-1])
            x = nn.relu(dense(x, scaled(units, self.width), self.init_name, bound, f"dense{i}"))
        return dense(x, self.classes, self.init_name, math.sqrt(6.0 / (3.25 * self.classes)), "dense2")

"""Deep networks with norms for small images: VGG-19, ResNet-18 and ResNet-50."""

from __future__ import annotations

from typing import ClassVar

import flax.linen as nn
import jax

from prfl_jax.models.architectures import scaled
from prfl_jax.models.choices import NORMS
from prfl_jax.models.inputs import IMAGES_OF_ANY_SIZE, Takes
from prfl_jax.models.nets import conv, dense_by_size, max_pool2

VGG19_CHANNELS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # channels and convolutions in front of each pool


class VGG19(nn.Module):
    """VGG-19 (Simonyan and Zisserman 2015): sixteen 3x3 convolutions with norms, dense 512, 512, the output.

    The dense layers are those that small images need, with dropout of a half in front of both. Where an image is down
    to one pixel its pool is left out, so that 28x28 can be taken (EMNIST in FedMP).

    Attributes:
      classes: outputs.
      width: multiplies the hidden widths.
      init_name: release | he | flax; without norms the release's weights are too small for so many layers.
      norm: batch | group | none, behind each convolution; with a norm convolutions have no bias.
    """

    classes: int = 10
    width: float = 1.0
    init_name: str = "release"
    norm: str = "batch"

    takes: ClassVar[Takes] = IMAGES_OF_ANY_SIZE

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Images `[B, H, W, C]` to logits `[B, classes]`."""
        norm, number = NORMS.find(self.norm), 0
        for channels, count in VGG19_CHANNELS:
            for _ in range(count):
                x = conv(x, scaled(channels, self.width), 3, self.init_name, f"conv{number:02d}", bias=norm.none)
                x = nn.relu(norm(x, train, f"norm{number:02d}"))
                number += 1
            x = max_pool2(x) if min(x.shape[1:3]) > 1 else x
        x = x.reshape(x.shape[0], -1)
        for layer in range(2):
            x = nn.Dropout(0.5, deterministic=not train)(x)
            x = nn.relu(dense_by_size(x, scaled(512, self.width), self.init_name, f"dense{layer}"))
        return dense_by_size(x, self.classes, self.init_name, "dense2")


class ResidualBlock(nn.Module):
    """A block of He et al. 2016: convolutions with norms, beside a shortcut that is projected where shapes differ.

    Attributes:
      plan: (kernel, channels) of each convolution.
      stride: of the first 3x3 one and of the shortcut.
      init_name, norm: as in `ResNet`.
    """

    plan: tuple[tuple[int, int], ...]
    stride: int
    init_name: str
    norm: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """`[B, H, W, C]` to `[B, H / stride, W / stride, channels of the last convolution]`."""
        norm, h, left = NORMS.find(self.norm), x, self.stride
        for number, (size, channels) in enumerate(self.plan):
            stride, left = (left, 1) if size == 3 else (1, left)
            h = conv(h, channels, size, self.init_name, f"conv{number}", stride, bias=False)
            h = norm(h, train, f"norm{number}")
            h = nn.relu(h) if number < len(self.plan) - 1 else h
        if h.shape != x.shape:
            x = conv(x, h.shape[-1], 1, self.init_name, "shortcut", self.stride, bias=False)
            x = norm(x, train, "shortcut_norm")
        return nn.relu(h + x)


class ResNet(nn.Module):
    """A residual network for small images (He et al. 2016): a 3x3 convolution, four stages, their mean, the output.

    The first convolution has stride 1 and no pool follows, as is usual for images of 32x32.

    Attributes:
      classes: outputs.
      width: multiplies the channels.
      init_name: release | he | flax.
      norm: batch | group, behind each convolution.
    """

    classes: int = 10
    width: float = 1.0
    init_name: str = "release"
    norm: str = "batch"

    takes: ClassVar[Takes] = IMAGES_OF_ANY_SIZE
    stages: ClassVar[tuple[tuple[int, int], ...]] = ()  # channels, and blocks
    bottleneck: ClassVar[int] = 0  # how many times the channels a block gives, if its 3x3 convolution has 1x1 beside it

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Images `[B, H, W, C]` to logits `[B, classes]`."""
        first = scaled(self.stages[0][0], self.width)
        x = conv(x, first, 3, self.init_name, "conv0", bias=False)
        x = nn.relu(NORMS.find(self.norm)(x, train, "norm0"))
        for stage, (channels, blocks) in enumerate(self.stages):
            size = scaled(channels, self.width)
            plan = ((1, size), (3, size), (1, self.bottleneck * size)) if self.bottleneck else ((3, size), (3, size))
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                x = ResidualBlock(plan, stride, self.init_name, self.norm, name=f"stage{stage}_block{block}")(x, train)
        return dense_by_size(x.mean((1, 2)), self.classes, self.init_name, "output")


class ResNet18(ResNet):
    """ResNet-18: blocks of two 3x3 convolutions; 11,173,962 parameters with 10 outputs and batch norm."""

    stages = ((64, 2), (128, 2), (256, 2), (512, 2))


class ResNet50(ResNet):
    """ResNet-50: blocks of a 1x1, a 3x3 and a 1x1 convolution; 23,520,842 parameters with 10 outputs and batch norm."""

    stages = ((64, 3), (128, 4), (256, 6), (512, 3))
    bottleneck = 4

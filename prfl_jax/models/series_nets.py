"""Networks for series of any length: a convolutional one and a recurrent one, which disregard padding."""

from __future__ import annotations

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from prfl_jax.models.architectures import scaled
from prfl_jax.models.inputs import SERIES, Takes
from prfl_jax.models.nets import conv, dense_by_size
from prfl_jax.models.recurrent import GRU, last_step

LAYERS = ((128, 8), (256, 5), (128, 3))  # channels and steps of the kernels


class CNN1D(nn.Module):
    """The fully convolutional network of Wang et al. 2017 ("Time series classification from scratch") without norms.

    Three convolutions over the steps, the mean over the steps of a sample, the output. Steps that are padding are 0 in
    front of each convolution and do not count in the mean, so that they change nothing.

    Attributes:
      classes: outputs.
      width: multiplies the channels.
      init_name: release | he | flax.
    """

    classes: int
    width: float = 1.0
    init_name: str = "release"

    takes: ClassVar[Takes] = SERIES

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        """Series `[B, T, C]` and their lengths to logits `[B, classes]`."""
        there = (jnp.arange(x.shape[1]) < lengths[:, None])[:, None, :, None]
        h = x[:, None]  # images of one row, `[B, 1, T, C]`
        for number, (channels, steps) in enumerate(LAYERS):
            h = conv(h, scaled(channels, self.width), (1, steps), self.init_name, f"conv{number}")
            h = jnp.where(there, nn.relu(h), 0.0)
        mean = h.sum((1, 2)) / jnp.maximum(lengths, 1)[:, None]
        return dense_by_size(mean, self.classes, self.init_name, "output")


class GRUClassifier(nn.Module):
    """A GRU layer of 128 (Cho et al. 2014), and the output at the last step before a sample's padding.

    Attributes:
      classes: outputs.
      width: multiplies the units.
      init_name: release | he | flax.
    """

    classes: int
    width: float = 1.0
    init_name: str = "release"

    takes: ClassVar[Takes] = SERIES

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        """Series `[B, T, C]` and their lengths to logits `[B, classes]`."""
        h = GRU(scaled(128, self.width), self.init_name, name="gru0")(x.transpose(1, 0, 2))
        return dense_by_size(last_step(h, lengths), self.classes, self.init_name, "output")

"""FedMP's CNN for MNIST and AlexNet for CIFAR-10 (Jiang et al. 2022, section V-A)."""

from __future__ import annotations

from typing import ClassVar

import flax.linen as nn
import jax

from prfl_jax.models.architectures import scaled
from prfl_jax.models.inputs import IMAGES_OF_ANY_SIZE, Takes
from prfl_jax.models.nets import conv, dense_by_size, max_pool2


class CNN(nn.Module):
    """Two 5x5 convolutions of 32, each with a 2x2 max-pool, a dense layer of 256, the output.

    FedMP gives the layers and cites Wang et al. 2019 ("Adaptive federated learning in resource constrained edge
    computing systems") for the channels; the local response norm of that network is left out.

    Attributes:
      classes: outputs.
      width: multiplies the hidden widths.
      init_name: release | he | flax.
    """

    classes: int = 10
    width: float = 1.0
    init_name: str = "release"

    takes: ClassVar[Takes] = IMAGES_OF_ANY_SIZE

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images `[B, 28, 28, 1]` to logits `[B, classes]`."""
        for number in range(2):
            x = max_pool2(nn.relu(conv(x, scaled(32, self.width), 5, self.init_name, f"conv{number}")))
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(dense_by_size(x, scaled(256, self.width), self.init_name, "dense0"))
        return dense_by_size(x, self.classes, self.init_name, "dense1")


# channels, stride, and whether a max-pool follows
ALEXNET = ((64, 2, True), (192, 1, True), (384, 1, False), (256, 1, False), (256, 1, True))


class AlexNet(nn.Module):
    """AlexNet for images of 32x32: five 3x3 convolutions, three max-pools, two dense layers of 4096, the output.

    The channels are those of Krizhevsky 2014 ("One weird trick"), the kernels those that fit such small images. Dropout
    of a half in front of both dense layers. FedMP gives no sizes.

    Attributes:
      classes: outputs.
      width: multiplies the hidden widths.
      init_name: release | he | flax.
    """

    classes: int = 10
    width: float = 1.0
    init_name: str = "release"

    takes: ClassVar[Takes] = IMAGES_OF_ANY_SIZE

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Images `[B, 32, 32, 3]` to logits `[B, classes]`."""
        for number, (channels, stride, pool) in enumerate(ALEXNET):
            x = nn.relu(conv(x, scaled(channels, self.width), 3, self.init_name, f"conv{number}", stride))
            x = max_pool2(x) if pool else x
        x = x.reshape(x.shape[0], -1)
        for number in range(2):
            x = nn.Dropout(0.5, deterministic=not train)(x)
            x = nn.relu(dense_by_size(x, scaled(4096, self.width), self.init_name, f"dense{number}"))
        return dense_by_size(x, self.classes, self.init_name, "dense2")

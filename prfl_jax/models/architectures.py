"""Layer sizes of the paper's two networks as plain numbers (no JAX), for the Flax modules and the clock's sizes."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Architecture:
    """SAME convolutions, some with a 2x2 max-pool behind, then hidden dense layers, then the output.

    Attributes:
      kernel: side of every convolution's kernel.
      channels: (output channels, whether a max-pool follows) of each convolution.
      hidden: units of each hidden dense layer.
    """

    kernel: int
    channels: tuple[tuple[int, bool], ...]
    hidden: tuple[int, ...]

    @property
    def output(self) -> str:
        """Name of the output layer."""
        return f"dense{len(self.hidden)}"


ARCHITECTURES = {
    # LEAF's network for FEMNIST
    "conv2": Architecture(5, ((32, True), (64, True)), (2048,)),
    # VGG-11 without normalisation
    "vgg11": Architecture(
        3,
        ((64, True), (128, True), (256, False), (256, True), (512, False), (512, True), (512, False), (512, True)),
        (512, 512),
    ),
}


@dataclasses.dataclass(frozen=True)
class Narrower:
    """A `width` of a built-in network with a share of the channels of another one.

    Attributes:
      width: of the whole network.
      share: of each layer's channels, rounded up as in a sub-model: ceil(C share).
    """

    width: float
    share: float


def scaled(size: int, width: float | Narrower) -> int:
    """A hidden size times `model.width`, at least 1."""
    if isinstance(width, Narrower):
        return math.ceil(scaled(size, width.width) * width.share - 1e-9)
    return max(1, round(size * width))

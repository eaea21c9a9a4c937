"""The layers of the two built-in networks as plain numbers; Flax modules and sizes are made from them (no JAX)."""

from __future__ import annotations

import dataclasses


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


def scaled(size: int, width: float) -> int:
    """A hidden size times `model.width`, at least 1."""
    return max(1, round(size * width))

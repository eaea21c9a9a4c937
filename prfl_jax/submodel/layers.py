"""Layer shapes of the two built-in models without JAX, for sizes and FLOP in the clock."""

from __future__ import annotations

import dataclasses
import math

from prfl_jax.models.architectures import ARCHITECTURES, scaled
from prfl_jax.models.channel_groups import ChannelGroups, declared_groups
from prfl_jax.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer with weights.

    Attributes:
      name: conv0, conv1, ..., dense0, ... (as the Flax modules call them)
      kernel: (height, width, in, out) of a convolution, (in, out) of a dense layer.
      positions: places a convolution is applied at (1 for a dense layer).
    """

    name: str
    kernel: tuple[int, ...]
    positions: int

    @property
    def weights(self) -> int:
        return math.prod(self.kernel)

    @property
    def biases(self) -> int:
        return self.kernel[-1]

    @property
    def flop(self) -> float:
        """Forward FLOP per sample; a multiplication and an addition are two."""
        return 2.0 * self.positions * self.weights


def layer_table(name: str, input_shape: tuple[int, int, int], classes: int, width: float = 1.0) -> tuple[Layer, ...]:
    """The layers of `conv2` or `vgg11`, from input to output; all have a bias per output.

    Convolutions keep the image's size (SAME padding); 2x2 max pooling halves it, rounded down.
    conv2: conv 5x5x32, pool, conv 5x5x64, pool, dense 2048, dense classes. vgg11: eight 3x3
    convolutions, dense 512, dense 512, dense classes.

    Args:
      input_shape: (height, width, channels).
      width: multiplies the hidden widths.

    Raises:
      UserError: another model's name, an image too small for the poolings.
    """
    if name not in ARCHITECTURES:
        raise UserError(f"model.name: the layers of {name!r} are known only for {', '.join(ARCHITECTURES)}")
    plan = ARCHITECTURES[name]
    rows, columns, inputs = input_shape
    layers = []
    for number, (channels, pool) in enumerate(plan.channels):
        outputs = scaled(channels, width)
        layers.append(Layer(f"conv{number}", (plan.kernel, plan.kernel, inputs, outputs), rows * columns))
        inputs = outputs
        if pool:
            rows, columns = rows // 2, columns // 2
    if not rows * columns:
        raise UserError(f"model.name: {name} cannot take images of {input_shape[0]}x{input_shape[1]}: too small")
    inputs *= rows * columns
    for number, outputs in enumerate((*(scaled(units, width) for units in plan.hidden), classes)):
        layers.append(Layer(f"dense{number}", (inputs, outputs), 1))
        inputs = outputs
    return tuple(layers)


def layer_channels(layers: tuple[Layer, ...]) -> ChannelGroups:
    """The channel groups of a chain of layers, each of which reads the one before: hidden outputs can be removed."""
    names: dict[str, tuple[str | None, ...]] = {}
    before: str | None = None
    for number, layer in enumerate(layers):
        after = layer.name if number < len(layers) - 1 and layer.biases > 1 else None
        names[f"{layer.name}/kernel"] = (*[None] * (len(layer.kernel) - 2), before, after)
        names[f"{layer.name}/bias"] = (after,)
        before = after
    shapes = {
        f"{layer.name}/{leaf}": shape
        for layer in layers
        for leaf, shape in (("bias", layer.kernel[-1:]), ("kernel", layer.kernel))
    }
    return declared_groups(names, shapes)

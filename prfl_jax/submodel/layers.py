"""Layer shapes of the two models, without JAX: the clock needs sizes and FLOP, not weights."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from prfl_jax.architectures import ARCHITECTURES, scaled
from prfl_jax.errors import UserError
from prfl_jax.submodel.size import ModelSize, to_percent

# (height, width, channels) and classes of the data sets that ship or are built here.
DATA_SHAPES = {
    "mnist_embedded": ((28, 28, 1), 10),
    "mnist_by_writer": ((28, 28, 1), 10),
    "femnist": ((28, 28, 1), 62),
    "cifar10": ((32, 32, 3), 10),
}


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


def model_size_from_config(config: Any) -> ModelSize:
    """Sizes of the model that a config names, for the data it names.

    `model.size_mb` (MB of the full model) sets the bytes of one value; without it a value has 4.

    Raises:
      UserError: a model or data set whose shapes are not tabulated, a size that is not positive.
    """
    if config.data.name not in DATA_SHAPES:
        raise UserError(
            f"data.name: the image shape of {config.data.name!r} is not known without reading it; "
            f"use one of {', '.join(DATA_SHAPES)}"
        )
    shape, classes = DATA_SHAPES[config.data.name]
    layers = layer_table(config.model.name, shape, config.model.classes or classes, config.model.width)
    weights = tuple(layer.weights for layer in layers)
    biases = sum(layer.biases for layer in layers)
    bytes_per_value = 4.0
    if config.model.size_mb is not None:
        if not config.model.size_mb > 0:
            raise UserError(f"model.size_mb: {config.model.size_mb} MB is not positive")
        bytes_per_value = config.model.size_mb * 1e6 / (sum(weights) + biases)
    return ModelSize(
        layers=weights,
        fixed=biases,
        bytes_per_value=bytes_per_value,
        layer_flop=tuple(layer.flop for layer in layers),
        min_percent=to_percent(config.density.min_density),
    )

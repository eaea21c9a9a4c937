"""Sub-models of leading channels (HeteroFL, Diao et al. 2021): physically smaller networks, nested in each other.

At rate r every hidden layer keeps its first ceil(C r) outputs, biases included; the input
and the output layer's outputs stay whole. A weight's level is the smallest density (percent)
whose sub-model has both its channels, so the engine treats them like any nested sub-models,
while the clock is charged what the small network has (NumPy only).
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np

from prfl_jax.submodel.layers import Layer
from prfl_jax.submodel.rule import Network, SubmodelRule, Submodels
from prfl_jax.submodel.size import ModelSize

# HeteroFL halves: densities are whole percents, and these stand for the exact fractions.
_EXACT = {13: 1 / 8, 6: 1 / 16, 3: 1 / 32, 2: 1 / 64}


def rate(percent: int) -> float:
    """The share of channels at a density in percent; 13, 6, 3 and 2 stand for 1/8 to 1/64.

    Raises:
      ValueError: not in 1..100.
    """
    if not 1 <= percent <= 100:
        raise ValueError(f"percent {percent} is not in 1..100")
    return _EXACT.get(percent, percent / 100)


RATES = np.array([1.0] + [rate(percent) for percent in range(1, 101)])  # [101] by percent; 0 is not used


def kept(channels: int, percent: int) -> int:
    """ceil(C r) channels."""
    return math.ceil(channels * rate(percent) - 1e-9)


def _channel_levels(channels: int, copies: int = 1) -> np.ndarray:
    """`[copies * channels]` int8: the smallest percent that keeps each channel; channels vary fastest."""
    counts = np.array([kept(channels, percent) for percent in range(1, 101)])
    levels = 1 + np.searchsorted(counts, np.arange(channels), side="right")
    return np.tile(levels, copies).astype(np.int8)


def leading_levels(layers: tuple[Layer, ...]) -> dict[str, np.ndarray]:
    """int8 level of each weight, by path (`conv0/kernel`, `conv0/bias`, ...)."""
    levels = {}
    channels, here = 0, np.ones(layers[0].kernel[-2], np.int8)  # the image's own channels are always there
    for number, layer in enumerate(layers):
        inputs, outputs = layer.kernel[-2:]
        if inputs != len(here):  # flattened behind the convolutions
            here = _channel_levels(channels, inputs // channels)
        last = number == len(layers) - 1
        there = np.ones(outputs, np.int8) if last else _channel_levels(outputs)
        levels[f"{layer.name}/kernel"] = np.broadcast_to(np.maximum(here[:, None], there), layer.kernel)
        levels[f"{layer.name}/bias"] = there
        channels, here = outputs, there
    return levels


@dataclasses.dataclass(frozen=True)
class LeadingSize(ModelSize):
    """Sizes of the small networks; `layers` are all leaves, biases too, since those of dropped channels go as well.

    Args:
      network: the layers of the full model, from input to output.
    """

    network: tuple[Layer, ...] = ()

    def _kernels(self, percent: int) -> list[tuple[int, int]]:
        """(weights, biases) of each layer of the sub-model."""
        sizes = []
        for number, layer in enumerate(self.network):
            inputs, outputs = layer.kernel[-2:]
            if number:
                before = self.network[number - 1].kernel[-1]
                inputs = inputs // before * kept(before, percent)
            if number < len(self.network) - 1:
                outputs = kept(outputs, percent)
            sizes.append((math.prod(layer.kernel[:-2]) * inputs * outputs, outputs))
        return sizes

    @functools.cache  # noqa: B019 - a handful of objects, each asked for a hundred percents
    def count(self, percent: int) -> int:
        """Values of the sub-model."""
        rate(percent)
        return sum(weights + biases for weights, biases in self._kernels(percent))

    def mask_bytes(self, percent: int) -> int:
        """None: the rate says it all."""
        return 0

    def density_bytes(self, percent: int) -> int:
        """A physically smaller model has its own size by either rule."""
        return self.value_bytes(percent)

    def held_kernels(self, percent: int) -> tuple[float, ...]:
        """Weights of each kernel of the sub-model."""
        named = zip(self.network, self._kernels(percent), strict=True)
        return tuple(float(weights) for layer, (weights, _) in sorted(named, key=lambda pair: pair[0].name))

    def flop_share(self, percent: int) -> float:
        """Of the full model's forward FLOP."""
        small = sum(w * layer.positions for (w, _), layer in zip(self._kernels(percent), self.network, strict=True))
        return small / sum(layer.weights * layer.positions for layer in self.network)


def leading_size(layers: tuple[Layer, ...], bytes_per_value: float) -> LeadingSize:
    """Sizes from the table of layers; leaves in the order of `jax.tree.leaves` (by name, bias before kernel)."""
    by_name = sorted(layers, key=lambda layer: layer.name)
    return LeadingSize(
        layers=tuple(size for layer in by_name for size in (layer.biases, layer.weights)),
        fixed=0,
        bytes_per_value=bytes_per_value,
        layer_flop=tuple(flop for layer in by_name for flop in (0.0, layer.flop)),
        network=layers,
        kernels=tuple(layer.weights for layer in by_name),
        kernel_layers=tuple(range(1, 2 * len(layers), 2)),
    )


class Leading(SubmodelRule):
    """The first channels of every hidden layer, the same ones in all windows (HeteroFL, FjORD)."""

    @property
    def channels(self) -> bool:
        return True

    @property
    def whole_channels(self) -> bool:
        return True

    @property
    def known_networks(self) -> bool:
        return True

    @property
    def fixed_levels(self) -> bool:
        return True

    def fit(self, network: Network, name: str) -> Submodels:
        """Levels and sizes from the table of layers."""
        layers = network.layers()
        by_path = leading_levels(layers)
        size = leading_size(layers, network.size.bytes_per_value)
        return Submodels(size, tuple(by_path[path] for path in network.shapes))

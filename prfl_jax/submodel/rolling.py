"""Sub-models of rolling channels (FedRolex, Alam et al. 2022): the window of kept channels moves by one each window.

At rate r every hidden layer keeps ceil(C r) of its C channels, as in HeteroFL. In the window after n closes they are
the channels n, n + 1, ... modulo C, so that all channels are trained in turn. The input and the output layer's outputs
stay whole. Sizes do not depend on n, so the clock's bytes are those of `leading.py`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from prfl_jax.submodel.layers import Layer
from prfl_jax.submodel.leading import Leading
from prfl_jax.submodel.rule import Arrays, Network, Submodels


class Rolling(Leading):
    """The next channel of every hidden layer takes the first one's place in each window."""

    @property
    def fixed_levels(self) -> bool:
        return False

    def fit(self, network: Network, name: str) -> Submodels:
        """The levels of leading channels in the first window, rolled by one channel after each close."""
        layers, paths = network.layers(), tuple(network.shapes)

        def advance(levels: Arrays) -> Arrays:
            return tuple(_rolled(layers, path, level) for path, level in zip(paths, levels, strict=True))

        return dataclasses.replace(super().fit(network, name), advance=advance)


def _rolled(layers: tuple[Layer, ...], path: str, level: Any) -> Any:
    """The level of one leaf, each hidden channel with what the one before it had."""
    import jax.numpy as jnp

    number = next(k for k, layer in enumerate(layers) if path.startswith(f"{layer.name}/"))
    if number < len(layers) - 1:
        level = jnp.roll(level, 1, axis=-1)
    if number and level.ndim > 1:  # a kernel's inputs are the channels of the layer before, flattened or not
        channels, shape = layers[number - 1].kernel[-1], level.shape
        level = jnp.roll(level.reshape(*shape[:-2], -1, channels, shape[-1]), 1, axis=-2).reshape(shape)
    return level

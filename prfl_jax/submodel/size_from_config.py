"""Sizes of the built-in models from a config alone, without JAX and without reading data, for the clock."""

from __future__ import annotations

import math
from typing import Any

from prfl_jax.data import DATA_SETS
from prfl_jax.submodel.choices import find_submodel
from prfl_jax.submodel.layers import layer_channels, layer_table
from prfl_jax.submodel.rule import Network
from prfl_jax.submodel.size import ModelSize, to_percent
from prfl_jax.system.errors import UserError


def model_size_from_config(config: Any) -> ModelSize:
    """Sizes of the model that a config names, for the data it names.

    `model.size_mb` (MB of the full model) sets the bytes of one value; without it a value has 4.

    Raises:
      UserError: a model or data set whose shapes are not tabulated, a size that is not positive.
    """
    source = DATA_SETS.known(config.data.name)
    if source is None or source.shape is None or source.classes is None or len(source.shape) != 3:
        known = DATA_SETS.with_trait(lambda other: other.shape is not None and len(other.shape) == 3)
        raise UserError(
            f"data.name: the shape of the samples of {config.data.name!r} is not known without reading them; "
            f"use one of {', '.join(known)}"
        )
    height, width, channels = source.shape
    classes = config.model.classes or source.classes
    layers = layer_table(config.model.name, (height, width, channels), classes, config.model.width)
    rule = find_submodel(config.submodel)
    kernels = {f"{layer.name}/kernel": layer.kernel for layer in layers}
    biases = {f"{layer.name}/bias": layer.kernel[-1:] for layer in layers}
    masked = kernels | biases if rule.channels else kernels
    total = sum(layer.weights + layer.biases for layer in layers)
    bytes_per_value = 4.0
    if config.model.size_mb is not None:
        if not config.model.size_mb > 0:
            raise UserError(f"model.size_mb: {config.model.size_mb} MB is not positive")
        bytes_per_value = config.model.size_mb * 1e6 / total
    flop = {f"{layer.name}/kernel": layer.flop for layer in layers}
    size = ModelSize(
        layers=tuple(math.prod(masked[path]) for path in masked),
        fixed=total - sum(math.prod(masked[path]) for path in masked),
        bytes_per_value=bytes_per_value,
        layer_flop=tuple(flop.get(path, 0.0) for path in masked),
        min_percent=to_percent(config.density.min_density),
        kernels=tuple(map(math.prod, kernels.values())),
        kernel_layers=tuple(range(len(kernels))),
    )
    return rule.fit(
        Network(kernels | biases, size, lambda: layers, lambda: layer_channels(layers), tuple(masked), tuple(kernels)),
        config.submodel.name,
    ).size

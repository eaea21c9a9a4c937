"""Sizes of the built-in models on the built-in data sets, from a config alone: neither JAX nor data is needed."""

from __future__ import annotations

from typing import Any

from prfl_jax.data import DATA_SETS
from prfl_jax.registry import is_own
from prfl_jax.submodel.choices import find_submodel, given
from prfl_jax.submodel.layers import layer_table
from prfl_jax.submodel.leading import leading_size
from prfl_jax.submodel.size import ModelSize, to_percent
from prfl_jax.system.errors import UserError


def model_size_from_config(config: Any) -> ModelSize:
    """Sizes of the model that a config names, for the data it names.

    `model.size_mb` (MB of the full model) sets the bytes of one value; without it a value has 4.

    Raises:
      UserError: a model or data set whose shapes are not tabulated, a size that is not positive.
    """
    source = DATA_SETS.known(config.data.name)
    if source is None or source.shape is None or source.classes is None:
        raise UserError(
            f"data.name: the image shape of {config.data.name!r} is not known without reading it; "
            f"use one of {', '.join(DATA_SETS)}"
        )
    layers = layer_table(config.model.name, source.shape, config.model.classes or source.classes, config.model.width)
    weights = tuple(layer.weights for layer in layers)
    biases = sum(layer.biases for layer in layers)
    bytes_per_value = 4.0
    if config.model.size_mb is not None:
        if not config.model.size_mb > 0:
            raise UserError(f"model.size_mb: {config.model.size_mb} MB is not positive")
        bytes_per_value = config.model.size_mb * 1e6 / (sum(weights) + biases)
    if config.submodel.name == "leading":
        return leading_size(layers, bytes_per_value)
    choice = find_submodel(config.submodel) if is_own(config.submodel.name) else None
    if choice is not None and choice.levels is not None:
        kernels = {f"{layer.name}/kernel": layer for layer in layers}
        shapes = {path: layer.kernel for path, layer in kernels.items()}
        shapes |= {f"{layer.name}/bias": layer.kernel[-1:] for layer in layers}
        flop = {path: kernels[path].flop if path in kernels else 0.0 for path in shapes}
        return given(config.submodel.name, choice, shapes, bytes_per_value, flop)[0]
    return ModelSize(
        layers=weights,
        fixed=biases,
        bytes_per_value=bytes_per_value,
        layer_flop=tuple(layer.flop for layer in layers),
        min_percent=to_percent(config.density.min_density),
    )

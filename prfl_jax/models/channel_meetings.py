"""Channels that meet element by element: in sums, in gates, in gains and biases (NumPy only)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prfl_jax.models.channel_classes import Classes
from prfl_jax.models.channel_values import Value, pattern, with_layers


def follow(classes: Classes, channels: np.ndarray, layers: Sequence[np.ndarray], place: str) -> np.ndarray | None:
    """Joins channels with the one axis of a leaf along which they go; the leaf's other axes stay whole.

    Args:
      channels: compact, of what meets the leaf.
      layers: of the leaf, that broadcast with `channels`.
      place: of the operation, for the text of an error.

    Returns:
      The layer that goes along; None: no axis of the leaf does.
    """
    if len(layers) == 1:
        chosen: np.ndarray | None = layers[0]
    else:
        found = classes.find(channels)
        fitting = [layer for layer in layers if _is_function(found, layer)]
        chosen = max(fitting, key=lambda layer: layer.size, default=None)
    for layer in layers:
        if layer is not chosen:
            classes.keep_whole(layer)
    if chosen is None:
        classes.mix(channels, place)
        return None
    one, other = np.broadcast_arrays(channels, chosen)
    classes.keep_whole(other[one < 0])
    classes.join(one, other)
    return chosen


def _is_function(channels: np.ndarray, layer: np.ndarray) -> bool:
    """Whether elements at the same index of a leaf's axis always have the same channel."""
    one, other = np.broadcast_arrays(channels, layer)
    pairs = np.unique(np.stack([other.reshape(-1), one.reshape(-1)]), axis=1)
    return len(np.unique(pairs[0])) == pairs.shape[1]


def together(classes: Classes, values: Sequence[Value], data: bool, place: str) -> list[np.ndarray]:
    """The layers of a value computed from others element by element; joins what meets.

    Args:
      values: of one shape.
      data: whether any of them depends on the samples.
      place: of the operation, for the text of an error.
    """
    if not data:
        return by_pattern(classes, [value.layers for value in values])
    channels: np.ndarray | None = None
    for value in values:
        if value.data and value.layers:
            layer = value.layers[0]
            channels = layer if channels is None else classes.merge(channels, layer)
    for value in values:
        if value.data or not value.layers:
            continue
        if channels is None:
            channels = beside_data(classes, value).layer
            continue
        axes = set(pattern(channels))
        along = [layer for layer in value.layers if not axes.isdisjoint(pattern(layer))]
        for layer in value.layers:
            if axes.isdisjoint(pattern(layer)):  # such as a bias of places
                classes.keep_whole(layer)
        chosen = follow(classes, channels, along, place) if along else None
        channels = channels if chosen is None else np.where(channels >= 0, channels, chosen)
    return [] if channels is None else [channels]


def by_pattern(classes: Classes, values: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """The layers of several values of leaves, where those that change along the same axes are joined."""
    found: dict[tuple[tuple[int, ...], int], np.ndarray] = {}
    for layers in values:
        patterns = [pattern(layer) for layer in layers]
        for number, (axes, layer) in enumerate(zip(patterns, layers, strict=True)):
            key = axes, patterns[:number].count(axes)  # axes of a leaf may have become one
            found[key] = classes.merge(found[key], layer) if key in found else layer
    return list(found.values())


def beside_data(classes: Classes, value: Value) -> Value:
    """A value of parameters where it stands beside values that depend on the samples: it has one layer at most."""
    if value.data or len(value.layers) < 2:
        return value
    for layer in value.layers:
        classes.keep_whole(layer)
    return with_layers(value, [])


def one_of(classes: Classes, values: Sequence[Value], place: str) -> Value:
    """A value that is one of several of the same shape."""
    data = any(value.data for value in values)
    out = Value(values[0].shape, data=data, zero=all(value.zero for value in values))
    return with_layers(out, together(classes, values, data, place))

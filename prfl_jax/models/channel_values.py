"""Values of a traced program as the channels that their elements carry, and what moves elements about (NumPy only).

An array of channels (a layer) is compact: an axis along which nothing changes has length 1, so that an image
`[B, H, W, C]` has a layer of C numbers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from prfl_jax.models.channel_classes import NONE

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Value:
    """A value of the program.

    Attributes:
      shape: of the array.
      layers: compact arrays of nodes (`Classes`); one at most where the value depends on the samples, one for each
        axis of a leaf in what is computed from parameters alone.
      data: whether it depends on the samples.
      zero: whether an element is 0 where its channel is removed; of a constant, whether it is 0.
      known: the array itself, where it depends on neither samples nor parameters.
    """

    shape: Shape
    layers: tuple[np.ndarray, ...] = ()
    data: bool = False
    zero: bool = False
    known: Callable[[], Any] | None = None

    @property
    def layer(self) -> np.ndarray | None:
        """The only layer, or None."""
        return self.layers[0] if self.layers else None


def compact(layer: np.ndarray) -> np.ndarray:
    """The layer with axes of length 1 where nothing changes along them."""
    for axis, length in enumerate(layer.shape):
        if length > 1:
            first = layer.take([0], axis)
            layer = first if (layer == first).all() else layer
    return layer


def with_layers(value: Value, layers: Iterable[np.ndarray]) -> Value:
    """The value with other layers, compact; those without any channel are left out."""
    kept = tuple(compact(layer) for layer in layers if (layer >= 0).any())
    return dataclasses.replace(value, layers=kept)


def varies(layer: np.ndarray, axes: Iterable[int]) -> bool:
    """Whether a compact layer changes along one of the axes."""
    return any(layer.shape[axis] > 1 for axis in axes)


def pattern(layer: np.ndarray) -> tuple[int, ...]:
    """The axes along which a compact layer changes."""
    return tuple(axis for axis, length in enumerate(layer.shape) if length > 1)


def full(layer: np.ndarray, axis: int, length: int) -> np.ndarray:
    """The layer with one axis in its true length."""
    return np.repeat(layer, length, axis) if layer.shape[axis] == 1 else layer


# --- what moves the elements of one array: (compact layer, true shape, parameters, true shape after) -> layer(s) ---


def reshape(layer: np.ndarray, shape: Shape, params: dict[str, Any], after: Shape) -> np.ndarray:
    """Only axes that are merged or split, and change, are written out."""
    old: list[int] = []
    new = [1] * len(after)
    for before, behind in _blocks(shape, after):
        changes = varies(layer, before)
        old += [shape[axis] if changes else 1 for axis in before]
        for axis in behind:
            new[axis] = after[axis] if changes else 1
    return np.broadcast_to(layer, old).reshape(new)


def _blocks(shape: Shape, after: Shape) -> Iterable[tuple[list[int], list[int]]]:
    """(old axes, new axes) with equally many elements, as few as can be, in order."""
    i = j = 0
    while i < len(shape) or j < len(after):
        before, behind = list(range(i, min(i + 1, len(shape)))), list(range(j, min(j + 1, len(after))))
        i, j = i + len(before), j + len(behind)
        while (a := math.prod(shape[k] for k in before)) != (b := math.prod(after[k] for k in behind)):
            if a < b:
                before, i = [*before, i], i + 1
            else:
                behind, j = [*behind, j], j + 1
        yield before, behind


def _transpose(layer: np.ndarray, shape: Shape, params: dict[str, Any], after: Shape) -> np.ndarray:
    return layer.transpose(params["permutation"])


def _broadcast(layer: np.ndarray, shape: Shape, params: dict[str, Any], after: Shape) -> np.ndarray:
    lengths = [1] * len(after)
    for axis, where in enumerate(params["broadcast_dimensions"]):
        lengths[where] = layer.shape[axis]
    return layer.reshape(lengths)


def _squeeze(layer: np.ndarray, shape: Shape, params: dict[str, Any], after: Shape) -> np.ndarray:
    return layer.squeeze(tuple(params["dimensions"]))


def _slice(layer: np.ndarray, shape: Shape, params: dict[str, Any], after: Shape) -> np.ndarray:
    strides = params["strides"] or (1,) * len(shape)
    ranges = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    cuts = [slice(*one) if length > 1 else slice(None) for one, length in zip(ranges, layer.shape, strict=True)]
    return layer[tuple(cuts)]


def _reverse(layer: np.ndarray, shape: Shape, params: dict[str, Any], after: Shape) -> np.ndarray:
    return np.flip(layer, params["dimensions"])


def _tile(layer: np.ndarray, shape: Shape, params: dict[str, Any], after: Shape) -> np.ndarray:
    reps = [times if length > 1 else 1 for times, length in zip(params["reps"], layer.shape, strict=True)]
    return np.tile(layer, reps)


def pad(layer: np.ndarray, shape: Shape, params: dict[str, Any], after: Shape) -> np.ndarray:
    """Padding along an axis of channels has none; elsewhere it counts as its neighbours' channel."""
    for axis, (low, high, between) in enumerate(params["padding_config"]):
        if layer.shape[axis] > 1 and (low or high or between):
            lengths = list(layer.shape)
            lengths[axis] = (shape[axis] - 1) * (between + 1) + 1
            spread = np.full(lengths, NONE, np.int32)
            np.moveaxis(spread, axis, 0)[:: between + 1] = np.moveaxis(layer, axis, 0)
            margins = [(0, 0)] * layer.ndim
            margins[axis] = (max(low, 0), max(high, 0))
            spread = np.pad(spread, margins, constant_values=NONE)
            cut = slice(max(-low, 0), spread.shape[axis] - max(-high, 0))
            layer = spread[(slice(None),) * axis + (cut,)]
    return layer


# of one operand; the others, such as the value of padding, are scalars
MOVES: dict[str, Callable[[np.ndarray, Shape, dict[str, Any], Shape], np.ndarray]] = {
    "reshape": reshape, "transpose": _transpose, "broadcast_in_dim": _broadcast, "squeeze": _squeeze, "slice": _slice,
    "rev": _reverse, "tile": _tile, "pad": pad,
}  # fmt: skip


def split(layer: np.ndarray, axis: int, sizes: Sequence[int]) -> list[np.ndarray]:
    """The parts of a layer along one axis."""
    if layer.shape[axis] == 1:
        return [layer] * len(sizes)
    return np.split(layer, np.cumsum(sizes)[:-1], axis)


def without_axes(layer: np.ndarray, axes: Iterable[int]) -> np.ndarray:
    """The layer at the first index of some axes, without these axes."""
    for axis in sorted(axes, reverse=True):
        layer = layer.take(0, axis)
    return layer

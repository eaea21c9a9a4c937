"""Channels through products: a kernel reads channels at its inputs and makes those of its outputs (NumPy only)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from prfl_jax.models.channel_classes import Classes
from prfl_jax.models.channel_meetings import follow
from prfl_jax.models.channel_values import Shape, Value, full, pattern, varies, with_layers


class Reading(NamedTuple):
    """A product of the program.

    Attributes:
      classes: of all leaves.
      place: of the operation, for the text of an error.
      read: is told the nodes of a kernel's inputs where channels are read.
    """

    classes: Classes
    place: str
    read: Callable[[np.ndarray], None]

    def keep_whole(self, layers: Iterable[np.ndarray]) -> None:
        """None of these channels can be removed."""
        for layer in layers:
            self.classes.keep_whole(layer)

    def mix(self, layers: Iterable[np.ndarray]) -> None:
        """These channels are read at once, other than by a kernel."""
        for layer in layers:
            self.classes.mix(layer, self.place)


class _Frame:
    """The axes of a `dot_general` in one order: batch, free of the left, free of the right, contracted."""

    def __init__(self, numbers: Any, left: Shape, right: Shape) -> None:
        (summed, batch), shapes = numbers, (left, right)
        free = [
            [axis for axis in range(len(shapes[side])) if axis not in summed[side] and axis not in batch[side]]
            for side in range(2)
        ]
        ends = np.cumsum([0, len(batch[0]), len(free[0]), len(free[1]), len(summed[0])]).tolist()
        self.batch, *self.free, self.summed = (range(a, b) for a, b in zip(ends, ends[1:], strict=False))
        self._orders = [[*batch[side], *free[side], *summed[side]] for side in range(2)]
        self._own = [[*self.batch, *self.free[side], *self.summed] for side in range(2)]
        self._size = ends[-1]

    def spread(self, value: Value, side: int) -> list[np.ndarray]:
        """The layers of one operand over all axes."""
        out = []
        for layer in value.layers:
            moved, lengths = layer.transpose(self._orders[side]), [1] * self._size
            for axis, length in zip(self._own[side], moved.shape, strict=True):
                lengths[axis] = length
            out.append(moved.reshape(lengths))
        return out

    def result(self, layer: np.ndarray) -> np.ndarray:
        """A layer that does not change along what is contracted, of the product."""
        return layer.reshape(layer.shape[: self._size - len(self.summed)])


class _Kernel:
    """The layers of a kernel: those that change along its inputs, those along its outputs, and the rest.

    Args:
      layers: compact.
      outputs, inputs: axes.
      zero: whether the kernel is 0 where a channel is removed.
    """

    def __init__(self, layers: Iterable[np.ndarray], outputs: Sequence[int], inputs: Sequence[int], zero: bool) -> None:
        self.axes, self.zero = inputs, zero
        self.inputs: list[np.ndarray] = []
        self.outputs: list[np.ndarray] = []
        self.rest: list[np.ndarray] = []
        for layer in layers:
            reads, makes = varies(layer, inputs), varies(layer, outputs)
            kind = self.rest if reads == makes else self.inputs if reads else self.outputs
            kind.append(layer)


def dot(reading: Reading, numbers: Any, operands: Sequence[Value], out: Value) -> Value:
    """The value of a `dot_general`.

    Args:
      numbers: its dimension numbers.
      operands: left and right.
      out: the value without channels.
    """
    left, right = operands
    frame = _Frame(numbers, left.shape, right.shape)
    layers = [frame.spread(left, 0), frame.spread(right, 1)]
    if left.data and right.data:
        found, zero = _of_data(reading, frame, layers, operands), left.zero or right.zero
    elif left.data or right.data:
        side = 0 if left.data else 1
        zero = operands[1 - side].zero
        kernel = _Kernel(layers[1 - side], frame.free[1 - side], frame.summed, zero)
        found = _by_kernel(reading, kernel, layers[side], [*frame.batch, *frame.free[side]])
    else:
        found, zero = _of_leaves(reading, frame, layers, operands), left.zero and right.zero
    return with_layers(dataclasses.replace(out, zero=zero), [frame.result(layer) for layer in found])


def _by_kernel(reading: Reading, kernel: _Kernel, data: list[np.ndarray], others: Sequence[int]) -> list[np.ndarray]:
    """The layer of data times a kernel; `others` are the data's axes that are not contracted."""
    reading.keep_whole(kernel.rest)
    channels = data[0] if data else None
    passes = channels is not None and not varies(channels, kernel.axes)
    if channels is None or passes and varies(channels, others):  # the kernel mixes positions of each channel
        reading.keep_whole(kernel.inputs)
    elif kernel.inputs:
        _read_channels(reading, channels, kernel.inputs, kernel.zero)
        passes = False
    elif not passes:
        reading.mix([channels])
    if len(kernel.outputs) == 1 and not passes:
        reading.classes.make(kernel.outputs[0])
        return kernel.outputs
    reading.keep_whole(kernel.outputs)  # of several axes, or beside another channel
    return data if passes else []


def _read_channels(reading: Reading, channels: np.ndarray, inputs: Sequence[np.ndarray], zero: bool) -> None:
    """Joins channels with the inputs of a kernel that read them; what a constant reads stays whole.

    Args:
      zero: whether the kernel does not read what is removed.
    """
    chosen = follow(reading.classes, channels, inputs, reading.place)
    if chosen is not None:
        one, other = np.broadcast_arrays(channels, chosen)
        reading.classes.keep_whole(one[other < 0])
        reading.read(chosen)
    if not zero:
        reading.mix([channels])


def _of_data(
    reading: Reading, frame: _Frame, layers: list[list[np.ndarray]], operands: Sequence[Value]
) -> list[np.ndarray]:
    """The layer of a product of two values that depend on the samples."""
    summed = [bool(own) and varies(own[0], frame.summed) for own in layers]
    if all(summed):
        one, other = np.broadcast_arrays(layers[0][0], layers[1][0])
        reading.classes.join(one, other)
        alone = np.concatenate([one[other < 0], other[one < 0]])
        reading.mix([alone if operands[0].zero or operands[1].zero else one])
        return []
    reading.mix(own[0] for own, here in zip(layers, summed, strict=True) if here)
    passing = [own[0] for own, here in zip(layers, summed, strict=True) if own and not here]
    return [reading.classes.merge(*passing)] if len(passing) == 2 else passing


def _of_leaves(
    reading: Reading, frame: _Frame, layers: list[list[np.ndarray]], operands: Sequence[Value]
) -> list[np.ndarray]:
    """The layers of a product of parameters alone, such as the factors of a kernel of low rank."""
    inner = [[layer for layer in own if varies(layer, frame.summed)] for own in layers]
    for one in inner[0]:
        for other in inner[1]:
            reading.classes.join(one, other)
    nothing = any(value.zero and not value.layers for value in operands)  # a constant 0, which loops begin with
    for own, against in zip(inner, inner[::-1], strict=True):
        if not against and not nothing:
            reading.mix(own)
    return [layer for own in layers for layer in own if not varies(layer, frame.summed)]


def convolve(reading: Reading, params: dict[str, Any], operands: Sequence[Value], out: Value) -> Value:
    """The value of a `conv_general_dilated`.

    Args:
      params: of the primitive.
      operands: images and kernel.
      out: the value without channels.
    """
    images, kernel = operands
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    feature, (to, source, *_) = numbers.lhs_spec[1], numbers.rhs_spec
    if not images.data or kernel.data or not kernel.layers or params["batch_group_count"] != 1:
        reading.mix(layer for value in operands for layer in value.layers)
        return out
    channels = images.layer
    if channels is not None and pattern(channels) not in ((), (feature,)):  # places of an image differ
        reading.mix([channels])
        channels = None
    if channels is not None:
        channels = full(channels, feature, images.shape[feature]).reshape(groups, -1)
    inputs = [layer.reshape(-1, 1) for layer in kernel.layers if pattern(layer) == (source,)]
    outputs = [layer.reshape(1, -1) for layer in kernel.layers if pattern(layer) == (to,)]
    reading.keep_whole(layer for layer in kernel.layers if pattern(layer) not in ((to,), (source,)))  # taps
    if groups == 1:
        data = [] if channels is None else [channels.reshape(-1, 1)]
        found = _by_kernel(reading, _Kernel([*inputs, *outputs], [1], [0], kernel.zero), data, ())
    else:
        found = _by_groups(reading, channels, inputs, outputs, kernel.zero)
    length = out.shape[numbers.out_spec[1]]
    shape = [length if axis == numbers.out_spec[1] else 1 for axis in range(len(out.shape))]
    wide = [full(layer.reshape(1, -1), 1, length).reshape(shape) for layer in found]
    return with_layers(dataclasses.replace(out, zero=kernel.zero), wide)


def _by_groups(
    reading: Reading, channels: np.ndarray | None, inputs: list[np.ndarray], outputs: list[np.ndarray], zero: bool
) -> list[np.ndarray]:
    """The outputs `[1, O]` of a convolution in groups; `channels` `[groups, inputs of each]`.

    With one input in each group (depthwise) an output goes with its input. Else all groups lose the same inputs and
    the same outputs, so that they stay equally large.
    """
    if channels is None or not outputs:
        reading.keep_whole([*inputs, *outputs])
        return []
    made = outputs[0].reshape(len(channels), -1)
    if channels.shape[1] == 1:
        follow(reading.classes, channels, [made], reading.place)
    else:
        reading.classes.join(made, made[:1])
        _read_channels(reading, channels, [layer.reshape(1, -1) for layer in inputs], zero)
    reading.classes.make(outputs[0])
    return [outputs[0]]

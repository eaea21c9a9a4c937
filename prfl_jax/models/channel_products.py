"""Channels through products: a kernel reads channels at its inputs and makes those of its outputs (NumPy only)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from prfl_jax.models.channel_classes import Classes
from prfl_jax.models.channel_meetings import follow
from prfl_jax.models.channel_values import Shape, Value, full, pattern, varies, with_layers

Read = Callable[[np.ndarray], None]  # is told the nodes of a kernel's inputs where channels are read


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


def dot(classes: Classes, numbers: Any, operands: Sequence[Value], out: Value, place: str, read: Read) -> Value:
    """The value of a `dot_general`.

    Args:
      numbers: its dimension numbers.
      operands: left and right.
      out: the value without channels.
      place: of the operation, for the text of an error.
      read: is told the inputs of a kernel.
    """
    left, right = operands
    frame = _Frame(numbers, left.shape, right.shape)
    layers = [frame.spread(left, 0), frame.spread(right, 1)]
    if left.data and right.data:
        found = _of_data(classes, frame, layers, operands, place)
    elif left.data or right.data:
        side = 0 if left.data else 1
        kernel = _Kernel(layers[1 - side], [*frame.free[1 - side]], [*frame.summed])
        others = [*frame.batch, *frame.free[side]]
        found = _by_kernel(classes, kernel, layers[side], others, place, read)
    else:
        zero = any(value.zero and not value.layers for value in operands)  # what a loop begins with
        return with_layers(out, map(frame.result, _of_leaves(classes, frame, layers, None if zero else place)))
    return with_layers(out, [frame.result(layer) for layer in found])


class _Kernel:
    """The layers of a kernel: those that change along its inputs, those along its outputs, and the rest.

    Args:
      layers: compact.
      outputs, inputs: axes.
    """

    def __init__(self, layers: Iterable[np.ndarray], outputs: Sequence[int], inputs: Sequence[int]) -> None:
        self.axes = inputs
        self.inputs: list[np.ndarray] = []
        self.outputs: list[np.ndarray] = []
        self.rest: list[np.ndarray] = []
        for layer in layers:
            reads, makes = varies(layer, inputs), varies(layer, outputs)
            kind = self.rest if reads == makes else self.inputs if reads else self.outputs
            kind.append(layer)


def _by_kernel(
    classes: Classes, kernel: _Kernel, data: list[np.ndarray], others: Sequence[int], place: str, read: Read
) -> list[np.ndarray]:
    """The layer of data times a kernel; `others` are the data's axes that are not contracted."""
    for layer in kernel.rest:
        classes.keep_whole(layer)
    channels = data[0] if data else None
    passes = channels is not None and not varies(channels, kernel.axes)
    if channels is None or passes and varies(channels, others):  # the kernel mixes positions of each channel
        for layer in kernel.inputs:
            classes.keep_whole(layer)
    elif kernel.inputs:
        _read_channels(classes, channels, kernel.inputs, place, read)
        passes = False
    elif not passes:
        classes.mix(channels, place)
    if len(kernel.outputs) == 1 and not passes:
        classes.make(kernel.outputs[0])
        return kernel.outputs
    for layer in kernel.outputs:  # of several axes, or beside another channel
        classes.keep_whole(layer)
    return data if passes else []


def _read_channels(
    classes: Classes, channels: np.ndarray, inputs: Sequence[np.ndarray], place: str, read: Read
) -> None:
    """Joins channels with the inputs of a kernel that read them; what a constant reads stays whole."""
    chosen = follow(classes, channels, inputs, place)
    if chosen is not None:
        one, other = np.broadcast_arrays(channels, chosen)
        classes.keep_whole(one[other < 0])
        read(chosen)


def _of_data(
    classes: Classes, frame: _Frame, layers: list[list[np.ndarray]], operands: Sequence[Value], place: str
) -> list[np.ndarray]:
    """The layer of a product of two values that depend on the samples."""
    summed = [bool(own) and varies(own[0], frame.summed) for own in layers]
    if all(summed):
        one, other = np.broadcast_arrays(layers[0][0], layers[1][0])
        classes.join(one, other)
        alone = np.concatenate([one[other < 0], other[one < 0]])
        classes.mix(alone if operands[0].zero or operands[1].zero else one, place)
        return []
    for own, here in zip(layers, summed, strict=True):
        if here:
            classes.mix(own[0], place)
    passing = [own[0] for own, here in zip(layers, summed, strict=True) if own and not here]
    return [classes.merge(*passing)] if len(passing) == 2 else passing


def _of_leaves(classes: Classes, frame: _Frame, layers: list[list[np.ndarray]], place: str | None) -> list[np.ndarray]:
    """The layers of a product of parameters alone, such as the factors of a kernel of low rank.

    Without a place it is one with a constant 0.
    """
    inner = [[layer for layer in own if varies(layer, frame.summed)] for own in layers]
    for one in inner[0]:
        for other in inner[1]:
            classes.join(one, other)
    for own, against in zip(inner, inner[::-1], strict=True):
        if not against and place is not None:
            for layer in own:
                classes.mix(layer, place)
    return [layer for own in layers for layer in own if not varies(layer, frame.summed)]


def convolve(
    classes: Classes, params: dict[str, Any], operands: Sequence[Value], out: Value, place: str, read: Read
) -> Value:
    """The value of a `conv_general_dilated`; arguments as for `dot`."""
    images, kernel = operands
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    feature, (to, source, *_) = numbers.lhs_spec[1], numbers.rhs_spec
    if not images.data or kernel.data or not kernel.layers or params["batch_group_count"] != 1:
        for value in operands:
            for layer in value.layers:
                classes.mix(layer, place)
        return out
    channels = images.layer
    if channels is not None and pattern(channels) not in ((), (feature,)):  # places of an image differ
        classes.mix(channels, place)
        channels = None
    if channels is not None:
        channels = full(channels, feature, images.shape[feature]).reshape(groups, -1)
    flat = [layer for layer in kernel.layers if pattern(layer) in ((to,), (source,))]
    for layer in kernel.layers:
        if pattern(layer) not in ((to,), (source,)):  # taps
            classes.keep_whole(layer)
    inputs = [layer.reshape(-1, 1) for layer in flat if pattern(layer) == (source,)]
    outputs = [layer.reshape(1, -1) for layer in flat if pattern(layer) == (to,)]
    if groups == 1:
        data = [] if channels is None else [channels.reshape(-1, 1)]
        found = _by_kernel(classes, _Kernel([*inputs, *outputs], [1], [0]), data, (), place, read)
    else:
        found = _by_groups(classes, channels, inputs, outputs, place, read)
    length = out.shape[numbers.out_spec[1]]
    shape = [length if axis == numbers.out_spec[1] else 1 for axis in range(len(out.shape))]
    return with_layers(out, [full(layer.reshape(1, -1), 1, length).reshape(shape) for layer in found])


def _by_groups(
    classes: Classes, channels: np.ndarray | None, inputs: list[np.ndarray], outputs: list[np.ndarray], place: str,
    read: Read,
) -> list[np.ndarray]:  # fmt: skip
    """The outputs `[1, O]` of a convolution in groups; `channels` `[groups, inputs of each]`.

    With one input in each group (depthwise) an output goes with its input. Else all groups lose the same inputs and
    the same outputs, so that they stay equally large.
    """
    if channels is None or not outputs:
        for layer in (*inputs, *outputs):
            classes.keep_whole(layer)
        return []
    made = outputs[0].reshape(len(channels), -1)
    if channels.shape[1] == 1:
        follow(classes, channels, [made], place)
    else:
        classes.join(made, made[:1])
        _read_channels(classes, channels, [layer.reshape(1, -1) for layer in inputs], place, read)
    classes.make(outputs[0])
    return [outputs[0]]

"""Channels through single operations of a traced program, by the name of the primitive."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from prfl_jax.models.channel_classes import NONE, Classes
from prfl_jax.models.channel_meetings import beside_data, by_pattern, one_of, together
from prfl_jax.models.channel_products import Reading, convolve, dot
from prfl_jax.models.channel_values import MOVES, Value, full, pattern, split, varies, with_layers, without_axes

# elementwise operations that give 0 for operands of 0, and others
_KEEP_ZERO = {
    "abs", "add", "add_any", "and", "asin", "asinh", "atan", "atanh", "cbrt", "ceil", "conj", "convert_element_type",
    "copy", "erf", "expm1", "floor", "imag", "log1p", "max", "min", "mul", "name", "neg", "or", "pvary", "real",
    "reduce_precision", "round", "sharding_constraint", "sign", "sin", "sinh", "sqrt", "square", "stop_gradient", "sub",
    "tan", "tanh", "xor",
}  # fmt: skip
_ELEMENTWISE = _KEEP_ZERO | {
    "acos", "acosh", "atan2", "bitcast_convert_type", "clamp", "clz", "complex", "cos", "cosh", "digamma", "div", "eq",
    "erf_inv", "erfc", "exp", "exp2", "ge", "gt", "integer_pow", "is_finite", "le", "lgamma", "log", "logistic", "lt",
    "ne", "nextafter", "not", "population_count", "pow", "rem", "rsqrt", "select_n", "shift_left",
    "shift_right_arithmetic", "shift_right_logical",
}  # fmt: skip
_REDUCTIONS = {
    "argmax", "argmin", "reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod", "reduce_sum",
    "reduce_xor",
}  # fmt: skip
_ALONG = {"cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum", "sort"}
_WINDOWS = {"reduce_window", "reduce_window_max", "reduce_window_min", "reduce_window_sum"}
_OF_ZEROS = {"reduce_max", "reduce_min", "reduce_sum", "reduce_window_max", "reduce_window_min", "reduce_window_sum"}


class Step(NamedTuple):
    """One operation.

    Attributes:
      name, params: of the primitive.
      place: for the text of an error.
      values: of the operands.
      outs: shapes of the results, without channels.
      classes: of all leaves.
      read: is told the nodes of a kernel's inputs where channels are read.
    """

    name: str
    params: dict[str, Any]
    place: str
    values: list[Value]
    outs: list[Value]
    classes: Classes
    read: Callable[[np.ndarray], None]

    def result(self, layers: Sequence[np.ndarray], number: int = 0, zero: bool = False) -> Value:
        """One of the results."""
        return with_layers(dataclasses.replace(self.outs[number], zero=zero), layers)

    def mix(self, layers: Sequence[np.ndarray]) -> None:
        """Notes that these channels are read at once."""
        for layer in layers:
            self.classes.mix(layer, self.place)

    def mix_operands(self, first: int) -> None:
        """The operands from the `first` on, such as indices, read channels at once."""
        self.mix([layer for value in self.values[first:] for layer in value.layers])


def take(step: Step) -> list[Value]:
    """The values of the results."""
    if step.name in _FOLLOWED:
        return _FOLLOWED[step.name](step)
    if step.name in MOVES:
        step.mix_operands(1)
        value, zero = step.values[0], all(value.zero for value in step.values)
        move, after = MOVES[step.name], step.outs[0].shape
        return [step.result([move(layer, value.shape, step.params, after) for layer in value.layers], zero=zero)]
    step.mix_operands(0)
    return step.outs


def keeps_zero(name: str, params: dict[str, Any], values: Sequence[Value]) -> bool:
    """Whether an elementwise operation or a move gives 0 here where its operands are 0."""
    zeros = [value.zero for value in values]
    if name in ("mul", "and"):
        return any(zeros)
    if name == "div":
        return zeros[0]
    if name == "select_n":
        return all(zeros[1:])
    if name == "integer_pow":
        return zeros[0] and params["y"] > 0
    return (name in _KEEP_ZERO or name in MOVES) and all(zeros)


def _elementwise(step: Step) -> list[Value]:
    values = [value for value in step.values if value.shape]
    step.mix([layer for value in step.values if not value.shape for layer in value.layers])  # one number for all
    layers = together(step.classes, values, step.outs[0].data, step.place)
    zero = keeps_zero(step.name, step.params, step.values)
    return [step.result(layers, zero=zero and (step.outs[0].data or _everywhere(step)))]


def _everywhere(step: Step) -> bool:
    """Whether a value of leaves is 0 where the channel of any of its axes is removed; `w + bias` is not."""
    axes = [{pattern(layer) for layer in value.layers} for value in step.values]
    every = set().union(*axes)
    if step.name in ("mul", "and", "div"):  # 0 where one of the operands is, the first one of a quotient
        zeros = [own for own, value in zip(axes, step.values, strict=True) if value.zero]
        return every <= (axes[0] if step.name == "div" else set().union(*zeros))
    return all(own in (every, set()) for own in axes)


def _reduce(step: Step) -> list[Value]:
    layers, axes = step.values[0].layers, step.params["axes"]
    step.mix([layer for layer in layers if varies(layer, axes)])
    kept = [without_axes(layer, axes) for layer in layers if not varies(layer, axes)]
    return [step.result(kept, zero=step.name in _OF_ZEROS and step.values[0].zero)]


def _along(step: Step) -> list[Value]:
    """Operations that keep the shape and mix along one axis."""
    axis = step.params["dimension"] if "dimension" in step.params else step.params["axis"]
    found = []
    for number, value in enumerate(step.values[: len(step.outs)]):
        step.mix([layer for layer in value.layers if varies(layer, [axis])])
        found.append(step.result([layer for layer in value.layers if not varies(layer, [axis])], number))
    return found


def _window(step: Step) -> list[Value]:
    params, value = step.params, step.values[0]
    axes = [
        axis
        for axis, size in enumerate(params["window_dimensions"])
        if size > 1 or params["window_strides"][axis] > 1 or any(params["padding"][axis])
    ]
    step.mix([layer for layer in value.layers if varies(layer, axes)])
    kept = [layer for layer in value.layers if not varies(layer, axes)]
    return [step.result(kept, zero=step.name in _OF_ZEROS and value.zero)]


def _concatenate(step: Step) -> list[Value]:
    """Channels stand beside each other; along another axis, such as places, they are joined."""
    axis, data, classes = step.params["dimension"], step.outs[0].data, step.classes
    parts = [beside_data(classes, value) if data else value for value in step.values]
    along = [[layer for layer in part.layers if varies(layer, [axis])] for part in parts]
    most = max(map(len, along))
    beside = [[layer for layer in part.layers if not varies(layer, [axis])] for part in parts]
    if data and not most:
        return [step.result(_merged(classes, beside), zero=all(value.zero for value in step.values))]
    if data:
        along, beside = [list(part.layers) for part in parts], []
    layers = by_pattern(classes, beside)
    nothing = np.full((1,) * len(step.outs[0].shape), NONE, np.int32)
    for number in range(most):
        rows = [own[number] if number < len(own) else nothing for own in along]
        rows = [full(row, axis, part.shape[axis]) for row, part in zip(rows, parts, strict=True)]
        lengths = [max(sizes) for sizes in zip(*(row.shape for row in rows), strict=True)]
        wide = [[row.shape[k] if k == axis else length for k, length in enumerate(lengths)] for row in rows]
        layers.append(np.concatenate(list(map(np.broadcast_to, rows, wide)), axis))
    return [step.result(layers, zero=all(value.zero for value in step.values))]


def _merged(classes: Classes, values: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """The one layer of values that stand at different places."""
    layers = [layer for own in values for layer in own]
    return [functools.reduce(classes.merge, layers)] if layers else []


def _stack(step: Step) -> list[Value]:
    joined, axis = one_of(step.classes, step.values, step.place), step.params["axis"]
    return [step.result([np.expand_dims(layer, axis) for layer in joined.layers], zero=joined.zero)]


def _unstack(step: Step) -> list[Value]:
    axis, value = step.params["axis"], step.values[0]
    return [
        step.result([layer.take(number if layer.shape[axis] > 1 else 0, axis) for layer in value.layers], number)
        for number in range(len(step.outs))
    ]


def _split(step: Step) -> list[Value]:
    value, numbers = step.values[0], range(len(step.outs))
    parts = [split(layer, step.params["axis"], step.params["sizes"]) for layer in value.layers]
    return [step.result([own[number] for own in parts], number, value.zero) for number in numbers]


def _one_by_one(step: Step) -> list[Value]:
    return step.values


def _dot(step: Step) -> list[Value]:
    reading = Reading(step.classes, step.place, step.read)
    return [dot(reading, step.params["dimension_numbers"], step.values, step.outs[0])]


def _convolution(step: Step) -> list[Value]:
    reading = Reading(step.classes, step.place, step.read)
    return [convolve(reading, step.params, step.values, step.outs[0])]


# --- choices among the elements of an array ---


def _picked(step: Step, axes: Sequence[int]) -> list[np.ndarray]:
    """The layers of the first operand from which elements are picked along some axes, without knowing which."""
    value, kept = step.values[0], []
    for layer in value.layers:
        if not varies(layer, axes):
            kept.append(layer)
        elif value.data:
            step.mix([layer])
        else:
            step.classes.keep_whole(layer)
    return kept


def _looked_up(step: Step, layers: list[np.ndarray]) -> Value:
    """Values of a leaf at places that the samples give: a kernel's outputs, as of tokens as vectors of one 1."""
    if step.outs[0].data and not step.values[0].data:
        if len(layers) == 1:
            step.classes.make(layers[0])
        else:
            for layer in layers:
                step.classes.keep_whole(layer)
            layers = []
    return step.result(layers, zero=step.values[0].zero)


def _gather(step: Step) -> list[Value]:
    step.mix_operands(1)
    value, indices, params = step.values[0], step.values[1], step.params
    numbers = params["dimension_numbers"]
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    axes = [axis for axis in range(len(value.shape)) if axis not in gone]
    part = [axis for axis, size in enumerate(params["slice_sizes"]) if size < value.shape[axis] or axis in gone]
    if indices.known is not None and any(varies(layer, part) for layer in value.layers):
        at = jnp.asarray(indices.known())
        options = {**params, "fill_value": None if params["fill_value"] is None else NONE}
        return [step.result([_gathered(layer, value.shape, at, options) for layer in value.layers])]
    layers = []
    for layer in _picked(step, part):
        lengths = [1] * len(step.outs[0].shape)
        for axis, where in zip(axes, numbers.offset_dims, strict=True):
            lengths[where] = layer.shape[axis]
        layers.append(layer.reshape(lengths))
    return [_looked_up(step, layers)]


def _gathered(layer: np.ndarray, shape: tuple[int, ...], indices: Any, options: dict[str, Any]) -> np.ndarray:
    return np.asarray(lax.gather_p.bind(jnp.asarray(np.broadcast_to(layer, shape)), indices, **options))


def _dynamic_slice(step: Step) -> list[Value]:
    step.mix_operands(1)
    value, starts, sizes = step.values[0], step.values[1:], step.params["slice_sizes"]
    part = [axis for axis, size in enumerate(sizes) if size < value.shape[axis]]
    if all(start.known is not None for start in starts) and any(varies(layer, part) for layer in value.layers):
        at = [int(np.asarray(start.known())) for start in starts]  # type: ignore[misc]
        at = [min(max(0, a), n - size) for a, n, size in zip(at, value.shape, sizes, strict=True)]
        cuts = [slice(a, a + size) for a, size in zip(at, sizes, strict=True)]
        layers = [
            layer[tuple(cut if n > 1 else slice(None) for cut, n in zip(cuts, layer.shape, strict=True))]
            for layer in value.layers
        ]
        return [step.result(layers, zero=value.zero)]
    return [_looked_up(step, _picked(step, part))]


def _dynamic_update(step: Step) -> list[Value]:
    step.mix_operands(2)
    value, update = step.values[:2]
    part = [axis for axis, size in enumerate(update.shape) if size < value.shape[axis]]
    step.mix([layer for own in (value, update) for layer in own.layers if varies(layer, part)])
    kept = [with_layers(own, [x for x in own.layers if not varies(x, part)]) for own in (value, update)]
    joined = one_of(step.classes, kept, step.place)
    return [step.result(joined.layers, zero=joined.zero)]


_FOLLOWED: dict[str, Callable[[Step], list[Value]]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_REDUCTIONS, _reduce),
    **dict.fromkeys(_ALONG, _along),
    **dict.fromkeys(_WINDOWS, _window),
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "dot_general": _dot,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update,
    "gather": _gather,
    "optimization_barrier": _one_by_one,
    "split": _split,
    "stack": _stack,
    "unstack": _unstack,
}

"""Finds the channels of a network by following them through its traced JAX program, without running it.

Every output of a kernel begins a channel: a filter, a neuron, a number of an embedding, a unit of a recurrent layer.
Operations on single elements join the channels that meet in them (residual sums, the gates of an LSTM) and those of
gains, biases and running statistics; a kernel that reads a channel has its own input for it. So a channel that is
removed takes its entries of all these leaves with it, and whatever is left is the small network: nothing that is left
reads a removed value. Whole stay the channels of the samples and of the outputs.

Where an operation reads several channels at once in another way (the mean over channels in a layer norm), nothing can
be removed without a change, and the network is refused.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal

from prfl_jax.models.channel_classes import Classes
from prfl_jax.models.channel_meetings import one_of
from prfl_jax.models.channel_steps import Step, keeps_zero, take
from prfl_jax.models.channel_values import Value, varies, with_layers
from prfl_jax.models.flop_count import scan_operands
from prfl_jax.models.static_values import called

SAMPLES = "@samples"  # in place of a leaf's path: the last axis of the samples


class ChannelTrace:
    """Follows the channels of leaves through programs.

    Args:
      shapes: of the leaves, by path, and of the last axis of the samples as `SAMPLES`, () if it has no channels.

    Attributes:
      classes: what was found.
      again: paths of leaves that one program reads more than once, as a recurrent layer does.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.classes, self.again = Classes(shapes), set[str]()
        self._shapes = shapes
        self._stacked: set[str] = set()  # leaves of which each turn of a loop has a part of its own
        self._uses: dict[str, set[tuple[int, ...]]] = {}
        self._calls: tuple[int, ...] = ()
        self._loops = 0

    def run(self, closed: Any, constants: Sequence[Value], samples: tuple[int, ...]) -> None:
        """Follows one program; the channels of its inputs and outputs stay whole.

        Args:
          closed: a `ClosedJaxpr` whose inputs are the leaves in their order, constants, and the samples.
          constants: values of these.
          samples: the shape of a batch.
        """
        self._uses = {}
        *leaves, features = [self._leaf(path, shape) for path, shape in self._shapes.items()]
        layers = tuple(layer.reshape(*[1] * (len(samples) - 1), -1) for layer in features.layers)
        for layer in layers:
            self.classes.keep_whole(layer)
        for out in self._program(closed, [*leaves, *constants, Value(samples, layers, data=True)]):
            for layer in out.layers:
                self.classes.keep_whole(layer)
        self.again |= {path for path, places in self._uses.items() if len(places) > 1}

    def _leaf(self, path: str, shape: tuple[int, ...]) -> Value:
        layers = []
        for axis, length in enumerate(shape):
            if length > 1:  # a single channel cannot go
                lengths = [length if k == axis else 1 for k in range(len(shape))]
                layers.append(self.classes.nodes(path, axis, length).reshape(lengths))
        return Value(shape, tuple(layers), zero=True)

    def _program(self, program: Any, values: Sequence[Value]) -> list[Value]:
        """Values of a program's outputs."""
        jaxpr, consts = getattr(program, "jaxpr", program), getattr(program, "consts", ())
        env = dict(zip(jaxpr.invars, values, strict=True))
        for place, var in enumerate(jaxpr.constvars):
            env[var] = _constant(var, consts[place]) if place < len(consts) else Value(_shape(var))

        def read(var: Any) -> Value:
            return _constant(var, var.val) if isinstance(var, Literal) else env[var]

        for equation in jaxpr.eqns:
            env.update(zip(equation.outvars, self._equation(equation, list(map(read, equation.invars))), strict=True))
        return list(map(read, jaxpr.outvars))

    def _equation(self, equation: Any, values: list[Value]) -> list[Value]:
        name, inner = equation.primitive.name, _called(equation)
        if name in _INSIDE or inner is not None:
            before, self._calls = self._calls, (*self._calls, id(equation))
            found = self._program(inner, values) if inner is not None else _INSIDE[name](self, equation, values)
            self._calls = before
            return found
        outs = [Value(_shape(var), data=any(value.data for value in values)) for var in equation.outvars]
        if not any(value.layers for value in values):
            return _without_channels(equation, values, outs)
        reader = self._reader(id(equation))
        return take(Step(name, equation.params, _place(equation), values, outs, self.classes, reader))

    def _reader(self, equation: int) -> Callable[[np.ndarray], None]:
        """Notes where a leaf reads channels; in a loop it does so in every turn."""

        def read(nodes: np.ndarray) -> None:
            for place in np.unique(self.classes.axis_of(nodes[nodes >= 0])).tolist():
                path, _ = self.classes.axes[place]
                here = (*self._calls, equation)
                self._uses.setdefault(path, set()).add(here)
                if self._loops and path not in self._stacked:
                    self._uses[path].add((*here, 1))

        return read

    def _scan(self, equation: Any, values: list[Value]) -> list[Value]:
        fixed, carried = scan_operands(equation)
        each = [self._turn(value, equation) for value in values[fixed + carried :]]

        def turn(carry: Sequence[Value]) -> list[Value]:
            return self._program(equation.params["jaxpr"], [*values[:fixed], *carry, *each])

        carry, outs = self._repeat(turn, values[fixed : fixed + carried], _place(equation))
        stacked = []
        for var, out in zip(equation.outvars[carried:], outs[carried:], strict=True):
            layers = [layer[None] for layer in out.layers]
            stacked.append(dataclasses.replace(out, shape=_shape(var), layers=tuple(layers), known=None))
        return [*carry, *stacked]

    def _turn(self, value: Value, equation: Any) -> Value:
        """What each turn of a loop has of a stacked value."""
        layers = []
        for layer in value.layers:
            if not varies(layer, [0]):
                layers.append(layer[0])
            elif value.data:
                self.classes.mix(layer, _place(equation))
            else:
                self.classes.keep_whole(layer)
            if not value.data:
                places = np.unique(self.classes.axis_of(layer[layer >= 0])).tolist()
                self._stacked |= {self.classes.axes[place][0] for place in places}
        return with_layers(Value(value.shape[1:], data=value.data, zero=value.zero), layers)

    def _repeat(
        self, turn: Callable[[Sequence[Value]], list[Value]], carry: Sequence[Value], place: str
    ) -> tuple[list[Value], list[Value]]:
        """(what a loop carries, what its turn gives), once a turn changes nothing more."""
        carry = [dataclasses.replace(value, known=None) for value in carry]
        self._loops += 1
        while True:
            outs = turn(carry)
            later = [one_of(self.classes, pair, place) for pair in zip(carry, outs, strict=False)]
            if all(map(self._same, carry, later)):
                break
            carry = later
        self._loops -= 1
        return later, outs

    def _same(self, one: Value, other: Value) -> bool:
        if (one.data, one.zero, len(one.layers)) != (other.data, other.zero, len(other.layers)):
            return False
        found = [[self.classes.find(layer) for layer in value.layers] for value in (one, other)]
        return all(map(np.array_equal, *found))

    def _while(self, equation: Any, values: list[Value]) -> list[Value]:
        ahead, behind = equation.params["cond_nconsts"], equation.params["body_nconsts"]
        tested, used = values[:ahead], values[ahead : ahead + behind]

        def turn(carry: Sequence[Value]) -> list[Value]:
            return self._program(equation.params["body_jaxpr"], [*used, *carry])

        carry, _ = self._repeat(turn, values[ahead + behind :], _place(equation))
        self._decided_by(self._program(equation.params["cond_jaxpr"], [*tested, *carry]), equation)
        return carry

    def _decided_by(self, values: Sequence[Value], equation: Any) -> None:
        """What decides about a branch reads its channels at once."""
        for value in values:
            for layer in value.layers:
                self.classes.mix(layer, _place(equation))

    def _cond(self, equation: Any, values: list[Value]) -> list[Value]:
        self._decided_by(values[:1], equation)
        branches = [self._program(branch, values[1:]) for branch in equation.params["branches"]]
        chosen = [one_of(self.classes, pair, _place(equation)) for pair in zip(*branches, strict=True)]
        return [dataclasses.replace(value, data=value.data or values[0].data) for value in chosen]


_INSIDE = {"scan": ChannelTrace._scan, "while": ChannelTrace._while, "cond": ChannelTrace._cond}


def _called(equation: Any) -> Any:
    """The program that an equation only calls, on its operands as they are."""
    inner = called(equation)
    fits = inner is not None and list(map(_shape, inner.invars)) == list(map(_shape, equation.invars))
    return inner if fits else None


def _shape(var: Any) -> tuple[int, ...]:
    return tuple(getattr(var.aval, "shape", ()))


def _place(equation: Any) -> str:
    """The operation and the module that has it, in words."""
    stack = str(equation.source_info.name_stack)
    return f"{equation.primitive.name} of {stack}" if stack else equation.primitive.name


def _constant(var: Any, value: Any) -> Value:
    """A number or an array that a program contains."""
    plain = not jax.dtypes.issubdtype(var.aval.dtype, jax.dtypes.extended)
    return Value(_shape(var), zero=plain and not np.any(np.asarray(value)), known=lambda: value)


def _without_channels(equation: Any, values: list[Value], outs: list[Value]) -> list[Value]:
    """Results of an operation on values without channels; a constant is computed where it is asked for."""
    zero = keeps_zero(equation.primitive.name, equation.params, values)
    if any(value.data or value.known is None for value in values):
        return [dataclasses.replace(out, zero=zero and bool(values)) for out in outs]

    def at(number: int) -> Any:
        found = equation.primitive.bind(*(value.known() for value in values), **equation.params)  # type: ignore[misc]
        return found[number] if equation.primitive.multiple_results else found

    return [
        dataclasses.replace(out, zero=zero and bool(values), known=functools.partial(at, number))
        for number, out in enumerate(outs)
    ]

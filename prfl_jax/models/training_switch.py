"""Finds a module's switch between training and evaluation, and its argument for lengths, by their names."""

from __future__ import annotations

import enum
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from prfl_jax.system.errors import UserError

# Names without case and underscores. True in training:
ON = frozenset(
    "train training istrain istraining trainmode trainingmode intraining dotrain usedropout enabledropout "
    "applydropout withdropout".split()
)
# True in evaluation:
OFF = frozenset(
    "deterministic isdeterministic userunningaverage userunningstats inference inferencemode isinference eval iseval "
    "evalmode evaluate evaluating evaluation isevaluation test testing istest istesting testmode disabledropout "
    "nodropout".split()
)
LENGTHS = frozenset("lengths length seqlengths seqlens seqlength sequencelengths sequencelength".split())
MODES = frozenset(["mode", "phase", "runmode"])  # a word or a member of an enumeration
TRAIN_WORDS = ("train", "training", "fit")
EVAL_WORDS = ("eval", "evaluate", "evaluation", "test", "testing", "inference", "infer", "predict", "val", "validation")
WORDS = "train, training, is_training, deterministic, inference, mode and their like"

NONE = inspect.Parameter.empty


def same_name(name: str) -> str:
    """A name without case and underscores."""
    return name.lower().replace("_", "")


def setting(name: str, default: Any, annotation: Any, train: bool) -> Any:
    """What a parameter or field of that name is set to; `NONE` where it is no training switch.

    Args:
      default: its default or present value, `NONE` without one.
      annotation: its type, `NONE` without one.
    """
    plain = same_name(name)
    if plain in ON | OFF:
        flag = default is NONE or default is None or isinstance(default, bool | np.bool_)
        flag = flag or (isinstance(default, int) and default in (0, 1))
        return train == (plain in ON) if flag else NONE
    if plain not in MODES:
        return NONE
    if (members := _members(default, annotation)) is not None:
        return _chosen(members, train)
    if default is NONE:
        return "train" if train else "eval"
    if isinstance(default, str) and default.lower() in TRAIN_WORDS + EVAL_WORDS:
        if (default.lower() in TRAIN_WORDS) == train:
            return default
        other = "train" if train else "eval"
        return other.upper() if default.isupper() else other
    return NONE


def _members(default: Any, annotation: Any) -> dict[str, Any] | None:
    """What a mode may be, by name in small letters; None where neither its default nor its type says so."""
    kind = type(default) if isinstance(default, enum.Enum) else annotation
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {member.name.lower(): member for member in kind}
    if typing.get_origin(annotation) is typing.Literal:
        return {str(value).lower(): value for value in typing.get_args(annotation)}
    return None


def _chosen(members: Mapping[str, Any], train: bool) -> Any:
    """The first of the known words that is a member."""
    return next((members[word] for word in (TRAIN_WORDS if train else EVAL_WORDS) if word in members), NONE)


def call_switch(name: str, module: type, samples: str) -> Callable[[bool], tuple[list[Any], dict[str, Any]]]:
    """What a module's `__call__` takes besides samples and their lengths: train -> (positional arguments, named ones).

    Args:
      name: of the model, for the text of an error.
      samples: what it is given, in words.

    Raises:
      UserError: it needs an argument that is no training switch.
    """
    taken = parameters(module.__call__)[2:]  # after the module itself and the samples
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    taken = [parameter for parameter in taken if parameter.kind not in variable and not _takes_lengths(parameter)]
    for parameter in taken:
        if parameter.default is NONE and _of(parameter, True) is NONE:
            raise UserError(
                f"config.model.name: {name!r} does not take {samples} alone: its __call__ needs "
                f"{parameter.name!r} too; allowed: {samples.split(' (')[0]} and a training switch ({WORDS})"
            )

    def arguments(train: bool) -> tuple[list[Any], dict[str, Any]]:
        values = {parameter.name: _of(parameter, train) for parameter in taken}
        ordered = [p for p in taken if p.kind is inspect.Parameter.POSITIONAL_ONLY]
        by_place = [p.default if values[p.name] is NONE else values[p.name] for p in ordered]
        rest = {p.name: values[p.name] for p in taken if p not in ordered and values[p.name] is not NONE}
        return by_place, rest

    return arguments


def _takes_lengths(parameter: inspect.Parameter) -> bool:
    """Whether an argument of a call takes the lengths of the samples, by its name."""
    return parameter.kind is not inspect.Parameter.POSITIONAL_ONLY and same_name(parameter.name) in LENGTHS


def length_argument(module: Any) -> str | None:
    """The name of the argument of a module's `__call__` that takes the lengths of samples; None: it has none."""
    return next((p.name for p in parameters(module.__call__)[2:] if _takes_lengths(p)), None)


def parameters(function: Any) -> list[inspect.Parameter]:
    """Of a function, with annotations as types where they can be had; none where it tells no signature."""
    try:
        return list(inspect.signature(function, eval_str=True).parameters.values())
    except Exception:  # an annotation that names nothing here
        pass
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []


def _of(parameter: inspect.Parameter, train: bool) -> Any:
    return setting(parameter.name, parameter.default, parameter.annotation, train)


def build_switch(function: Any, in_call: Iterable[str]) -> Callable[[bool], dict[str, Any]]:
    """Training switches that the making of a module takes: train -> named arguments.

    Args:
      function: `__init__`.
      in_call: names of switches of its `__call__`, which are not set a second time unless they have no default.
    """
    known = {same_name(name) for name in in_call}
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
    takes = [p for p in parameters(function)[1:] if p.kind not in kinds]
    takes = [p for p in takes if p.default is NONE or same_name(p.name) not in known]

    def arguments(train: bool) -> dict[str, Any]:
        values = {p.name: _of(p, train) for p in takes}
        return {name: value for name, value in values.items() if value is not NONE}

    return arguments


def fields_switch(module: Any, in_call: Iterable[str]) -> Callable[[bool], dict[str, Any]]:
    """As `build_switch`, for the fields of a linen instance, by the values they have."""
    known = {same_name(name) for name in in_call}
    names = [name for name in getattr(module, "__dataclass_fields__", {}) if same_name(name) not in known]

    def arguments(train: bool) -> dict[str, Any]:
        values = {name: setting(name, getattr(module, name, NONE), NONE, train) for name in names}
        return {name: value for name, value in values.items() if value is not NONE}

    return arguments

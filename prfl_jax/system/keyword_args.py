"""Keyword arguments that a config gives as the JSON text of an object, and whether a function takes them."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

WORDS = 'the JSON text of an object of keyword arguments, such as {"b1": 0.9}'
NONE = "{}"

Range = tuple[Callable[[float], bool], str]  # (test, words)


def parse(text: str) -> dict[str, Any]:
    """The arguments that a text gives.

    Examples:
      >>> parse('{"b1": 0.5, "nesterov": true}')
      {'b1': 0.5, 'nesterov': True}

    Raises:
      ValueError: it is no JSON object, has a name twice, or a number that is not finite.
    """
    found = json.loads(text, object_pairs_hook=_once, parse_constant=_not_finite)
    if not isinstance(found, dict):
        raise ValueError("no object")
    _check_finite(found)
    return found


def canonical(text: str) -> str:
    """The text that all texts of the same arguments share.

    Examples:
      >>> canonical('{"b2":0.99,  "b1": 5e-1}')
      '{"b1": 0.5, "b2": 0.99}'

    Raises:
      ValueError: as `parse`.
    """
    return json.dumps(parse(text), sort_keys=True)


def is_arguments(text: str) -> bool:
    """Whether `parse` reads the text."""
    try:
        parse(text)
    except (ValueError, RecursionError):
        return False
    return True


def misfit(function: Callable[..., Any], args: dict[str, Any], first: str) -> str | None:
    """Why `function(first, **args)` cannot be called so, in words that follow "allowed is"; None: it can.

    A value has to be of the kind of the parameter's default: a flag, a whole number, a number or a text. Where the
    default is None or something else, any value is taken.

    Args:
      first: the name of the argument that is given besides.
    """
    parameters = dict(inspect.signature(function).parameters)
    parameters.pop(first, None)
    named = {name: p for name, p in parameters.items() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    any_name = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    unknown = [name for name in args if name not in named]
    if unknown and not any_name:
        return f"an object with names among {', '.join(named) or '(none)'}, not {unknown[0]!r}"
    missing = [name for name, p in named.items() if p.default is p.empty and name not in args]
    if missing:
        return f"an object with {', '.join(missing)} too"
    for name, value in args.items():
        kind = _kind(named[name].default) if name in named else None
        if kind is not None and not kind[0](value):
            return f"an object in which {name} is {kind[1]}"
    return None


def out_of_range(args: Mapping[str, Any], ranges: Mapping[str, Range]) -> str | None:
    """Which argument is out of its range, in words that follow "allowed is"; None: none is.

    Args:
      ranges: by name. Values that are no numbers have none.

    Examples:
      >>> out_of_range({"b1": 1.5}, {"b1": (lambda v: v < 1, "below 1")})
      'an object in which b1 is below 1'
    """
    for name, (test, words) in ranges.items():
        value = args.get(name)
        if isinstance(value, int | float) and not test(value):
            return f"an object in which {name} is {words}"
    return None


def _kind(default: Any) -> tuple[Callable[[Any], bool], str] | None:
    """(test, words) of values of a default's kind; None for any value."""
    if isinstance(default, bool):
        return lambda value: isinstance(value, bool), "true or false"
    if isinstance(default, int):
        return lambda value: isinstance(value, int) and not isinstance(value, bool), "a whole number"
    if isinstance(default, float):
        return lambda value: isinstance(value, int | float) and not isinstance(value, bool), "a number"
    if isinstance(default, str):
        return lambda value: isinstance(value, str), "a text"
    return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def _not_finite(text: str) -> float:
    raise ValueError(f"{text} is not finite")


def _check_finite(value: Any) -> None:
    """Raises ValueError for a number beyond what a float holds, wherever it stands."""
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            _check_finite(one)
    elif isinstance(value, int | float) and not math.isfinite(_float(value)):
        raise ValueError("a number is not finite")


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf

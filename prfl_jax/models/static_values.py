"""Finds numbers in a traced program that are known without running it, such as the counter of a loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.extend.core import Literal, jaxprs_in_params

MAX_TURNS = 10_000  # of a loop that is followed by its counter


def _divide(a: Any, b: Any) -> Any:
    return np.divide(a, b) if np.issubdtype(a.dtype, np.inexact) else np.sign(a) * np.sign(b) * (abs(a) // abs(b))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": np.abs, "add": np.add, "add_any": np.add, "and": np.bitwise_and, "copy": np.positive, "div": _divide,
    "eq": np.equal, "ge": np.greater_equal, "gt": np.greater, "le": np.less_equal, "lt": np.less, "max": np.maximum,
    "min": np.minimum, "mul": np.multiply, "ne": np.not_equal, "neg": np.negative, "not": np.invert,
    "or": np.bitwise_or, "rem": np.fmod, "shift_left": np.left_shift, "shift_right_arithmetic": np.right_shift,
    "shift_right_logical": np.right_shift, "sign": np.sign, "sub": np.subtract, "xor": np.bitwise_xor,
}  # fmt: skip


def known(value: Any) -> Any:
    """A NumPy scalar of `value`, or None where it is an array or no plain number."""
    if not isinstance(value, np.ndarray | np.generic | int | float) and not hasattr(value, "__array__"):
        return None
    if np.shape(value) or not hasattr(value, "dtype") and not isinstance(value, int | float):
        return None
    dtype = getattr(value, "dtype", np.asarray(value).dtype)
    return np.asarray(value)[()] if isinstance(dtype, np.dtype) and dtype.kind in "biuf" else None


def evaluate(equation: Any, values: Sequence[Any]) -> Any:
    """The value of an equation with one scalar output, or None where it is not known."""
    if any(value is None for value in values) or len(equation.outvars) != 1 or equation.outvars[0].aval.shape:
        return None
    name, params = equation.primitive.name, equation.params
    with np.errstate(all="ignore"):
        try:
            if name == "convert_element_type":
                return values[0].astype(params["new_dtype"])
            if name == "select_n":
                return values[1 + int(values[0])]
            if name == "integer_pow":
                return values[0] ** params["y"]
            if name == "clamp":
                return np.minimum(np.maximum(values[1], values[0]), values[2])
            return _FUNCTIONS[name](*values) if name in _FUNCTIONS else None
        except (ArithmeticError, TypeError, ValueError):  # such as a division by zero
            return None


def called(equation: Any) -> Any:
    """The program that an equation only calls (`jit`, `remat`, `custom_vjp` and the like), or None."""
    inner = list(jaxprs_in_params(equation.params))
    if equation.primitive.name in ("scan", "while", "cond") or len(inner) != 1:
        return None
    fits = len(inner[0].invars) == len(equation.invars) and len(inner[0].outvars) == len(equation.outvars)
    return inner[0] if fits else None


def _run(jaxpr: Any, values: Sequence[Any]) -> list[Any]:
    """What is known of the outputs if so much is known of the inputs; None is unknown."""
    env: dict[Any, Any] = dict(zip(jaxpr.invars, values, strict=True))

    def read(var: Any) -> Any:
        return known(var.val) if isinstance(var, Literal) else env.get(var)

    for equation in jaxpr.eqns:
        arguments = [read(var) for var in equation.invars]
        if all(value is None for value in arguments):
            continue
        inner = called(equation)
        outs = [evaluate(equation, arguments)] if inner is None else _run(inner, arguments)
        if len(outs) == len(equation.outvars):
            env.update(zip(equation.outvars, outs, strict=True))
    return [read(var) for var in jaxpr.outvars]


def turns(params: dict[str, Any], values: Sequence[Any]) -> int | None:
    """How often a `while` runs its body, or None where that is not known.

    Args:
      params: of the equation.
      values: of its operands, None where unknown.
    """
    ahead, behind = params["cond_nconsts"], params["body_nconsts"]
    tested, used, carry = list(values[:ahead]), list(values[ahead : ahead + behind]), list(values[ahead + behind :])
    for turn in range(MAX_TURNS + 1):
        (again,) = _run(params["cond_jaxpr"].jaxpr, tested + carry)
        if again is None:
            return None
        if not again:
            return turn
        carry = _run(params["body_jaxpr"].jaxpr, used + carry)
    return None

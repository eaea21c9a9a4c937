"""Compares traced programs without running them: are two the same, does one grow with the batch alone?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal, jaxprs_in_params


class Step(NamedTuple):
    """An equation: its primitive, the shapes and types it gives, the constants it reads (as bytes)."""

    primitive: str
    shapes: tuple[tuple[int, ...], ...]
    types: tuple[str, ...]
    constants: tuple[bytes, ...]


def fingerprint(function: Callable[..., Any], *args: Any) -> list[Step]:
    """The equations of a call in their order, those of inner programs included."""
    closed = jax.make_jaxpr(function)(*args)
    steps = [Step("constants", (), (), tuple(_bytes(value) for value in closed.consts))]
    _visit(closed.jaxpr, steps)
    return steps


def _visit(jaxpr: Any, steps: list[Step]) -> None:
    for equation in jaxpr.eqns:
        out = [var.aval for var in equation.outvars]
        read = [_bytes(var.val) for var in equation.invars if isinstance(var, Literal)]
        for value in equation.params.values():
            if isinstance(value, ClosedJaxpr):
                read += [_bytes(constant) for constant in value.consts]
        shapes = tuple(tuple(getattr(aval, "shape", ())) for aval in out)
        types = tuple(str(getattr(aval, "dtype", "")) for aval in out)
        steps.append(Step(equation.primitive.name, shapes, types, tuple(read)))
        for inner in jaxprs_in_params(equation.params):
            _visit(inner, steps)


def _bytes(value: Any) -> bytes:
    if jnp.issubdtype(getattr(value, "dtype", np.float32), jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    try:
        array = np.asarray(value)
    except Exception:  # a constant that is no array
        return b""
    return array.dtype.str.encode() + array.tobytes()


def grows_with_batch(few: list[Step], many: list[Step], batch_few: int, batch_many: int) -> bool:
    """Whether a program for another batch is the same one with more rows: each size is as before, or in proportion."""
    if len(few) != len(many):
        return False
    for a, b in zip(few, many, strict=True):
        if (a.primitive, a.types, a.constants) != (b.primitive, b.types, b.constants):
            return False
        for shape, other in zip(a.shapes, b.shapes, strict=True):
            if len(shape) != len(other):
                return False
            for n, m in zip(shape, other, strict=True):
                if n != m and n * batch_many != m * batch_few:
                    return False
    return True


def lowest_float(function: Callable[..., Any], *args: Any) -> int:
    """Bytes of the narrowest float that a call computes in, 4 at most."""
    widths = [4]
    for step in fingerprint(function, *args):
        for name in step.types:
            if "float" in name:
                widths.append(jnp.dtype(name).itemsize)
    return min(widths)

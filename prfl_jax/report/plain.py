"""Converts values to plain Python for JSON, and formats JSON as text."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any


def plain(value: Any) -> Any:
    """`value` as dicts with text keys, lists, numbers, text, bools and None.

    NumPy and JAX scalars and arrays become Python numbers and lists; a number
    that is not finite becomes None, because JSON cannot represent it.

    Raises:
      TypeError: for a value of any other type.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"cannot write a {type(value).__name__} as JSON: {value!r}")


def has_non_finite(value: Any) -> bool:
    """Whether a number anywhere inside `value` is NaN or infinite."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(has_non_finite(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(has_non_finite(item) for item in value)
    if hasattr(value, "tolist"):
        return has_non_finite(value.tolist())
    return False


def compact(value: Any) -> str:
    """One line of JSON, keys sorted; raises ValueError for NaN and infinities."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    # Surrogates (of a path that is not UTF-8) cannot be encoded; the escapes written for them are valid JSON.
    return text.encode(errors="backslashreplace").decode()


def readable(value: Mapping[str, Any]) -> str:
    """JSON for people: a line per key of the two outer levels, a line per client; the rest compact."""

    def write(item: Any, depth: int) -> str:
        pad, end = " " * (depth + 1), " " * depth
        if isinstance(item, Mapping) and item and depth < 2:
            lines = [f"{pad}{compact(str(key))}: {write(item[key], depth + 1)}" for key in sorted(item)]
            return "{\n" + ",\n".join(lines) + f"\n{end}}}"
        if isinstance(item, list) and item and isinstance(item[0], Mapping) and depth < 2:
            return "[\n" + ",\n".join(pad + compact(entry) for entry in item) + f"\n{end}]"
        return compact(item)

    return write(value, 0) + "\n"

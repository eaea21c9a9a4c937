"""Compiles a user's Python file, whose declared encoding is tried first."""

from __future__ import annotations

import re
from types import CodeType

_ENCODING = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")  # as PEP 263 has it, in one of the first two lines


def compile_file(source: bytes, path: str) -> CodeType:
    """The code of a Python file.

    Some packages register a codec that asks itself for names it does not know, and decoding ends in a RecursionError;
    here an encoding that nobody knows is a SyntaxError, as without them.

    Args:
      source: its bytes.
      path: names it in tracebacks.

    Raises:
      SyntaxError: it is no Python, or in no known encoding.
      ValueError: it has null bytes.
    """
    for line in source.splitlines()[:2]:
        if (found := _ENCODING.match(line)) is not None:
            name = found[1].decode()
            try:
                line.decode(name, errors="replace")
            except (LookupError, RecursionError):
                raise SyntaxError(f"unknown encoding: {name}") from None
            break
    return compile(source, path, "exec", dont_inherit=True)

"""Prints warnings, notices and deprecations for the user on stderr, each once in a process."""

from __future__ import annotations

import warnings

from prfl_jax.system import console

_said: set[str] = set()


def warn_once(text: str) -> None:
    """Writes `warning: text` as one line, where this process has not written it before: it may be a mistake."""
    _say(f"warning: {text}")


def note_once(text: str) -> None:
    """Writes `note: text` likewise: what was done, though a user may not expect it."""
    _say(f"note: {text}")


def deprecated_once(text: str) -> None:
    """Warns that a user's file has a name of an earlier version; to be called where the file uses it.

    A `FutureWarning`, which Python shows by default with the line of the file, unlike a `DeprecationWarning`.
    """
    if text not in _said:
        _said.add(text)
        warnings.warn(text, FutureWarning, stacklevel=3)


def _say(text: str) -> None:
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))
    if line not in _said:
        _said.add(line)
        console.say(line)

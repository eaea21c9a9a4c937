"""`UserError`, for mistakes that the user can correct, and how values and other errors are worded in one line."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in a config, a flag, a file or a folder, which the user can correct.

    Its text is one line that names the key or the file, the value, and what is
    allowed or what to run. Scripts print it and leave with exit code 2.
    """


class InUse(UserError):
    """Another process is writing to this folder; wait for it, or take another one."""


class NobodyLeft(UserError):
    """A window waits for a client, but no client is left that could arrive."""


MOST_LETTERS = 120  # of a value or a key in a message


def shown(value: object) -> str:
    """`repr`, on one line and not longer than a reader wants."""
    try:
        text = repr(value)
    except Exception:  # integers of thousands of digits, tuples that hold themselves, a user's own class
        text = f"<{type(value).__name__}>"
    return shorten(text)


def shorten(text: str) -> str:
    """On one line, the end of a long text left out."""
    text = " ".join(line.strip() for line in text.splitlines())
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 3]}..."


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def refuse(key: str, value: object, allowed: str) -> UserError:
    """The error for a value that is not allowed (to be raised)."""
    return UserError(f"config.{key}={shown(value)}: allowed is {allowed}")

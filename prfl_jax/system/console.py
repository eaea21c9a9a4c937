"""Prints to stdout and stderr even where these are closed, broken or of another encoding; imports nothing else."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys

TYPE_CHECKING = False  # nothing is imported that takes long
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TextIO

# called when the reader of a stream has gone (SIGPIPE), so that the run can end in order; None: BrokenPipeError is
# raised
on_hangup: Callable[[int], None] | None = None
_GONE = (errno.EIO, errno.EBADF, errno.ENXIO)  # a terminal that was closed
_nowhere: TextIO | None = None


def nowhere() -> TextIO:
    """A stream that takes everything."""
    global _nowhere
    if _nowhere is None or _nowhere.closed:
        _nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - closed with the process
    return _nowhere


def errors() -> TextIO:
    """stderr, or `nowhere` where the process has none (a daemon, a program without a console)."""
    stream = sys.stderr
    return nowhere() if stream is None or getattr(stream, "closed", False) else stream


def is_terminal(stream: Any) -> bool:
    """Whether a stream, which may be anybody's own object, is a terminal."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError, OSError):
        return False


def say(text: str) -> None:
    """Writes a line to stderr, if that is possible."""
    with contextlib.suppress(OSError, ValueError):
        errors().write(f"{text}\n")
        errors().flush()


def flush() -> None:
    """Flushes both streams, as far as possible."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


class Stream:
    """A stream of the process that outlives its reader.

    Letters that its encoding lacks are told by their numbers. Where the reader of a pipe has gone, `on_hangup` is told,
    once, or BrokenPipeError is raised; a closed terminal takes everything, for SIGHUP tells of that.

    Args:
      must: whether an error of the disk it is written to counts.
    """

    def __init__(self, stream: TextIO, must: bool) -> None:
        self._stream, self._must, self._lost = stream, must, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        return is_terminal(self._stream)

    def write(self, text: str) -> int:
        if self._lost:
            return len(text)
        try:
            try:
                return self._stream.write(text)
            except UnicodeEncodeError as error:
                known = text.encode(error.encoding, "backslashreplace").decode(error.encoding)
                return self._stream.write(known)
        except OSError as error:
            self._failed(error)
        return len(text)

    def flush(self) -> None:
        if self._lost:
            return
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        if self._must and error.errno not in (errno.EPIPE, *_GONE):
            raise error
        self._lost = True
        with contextlib.suppress(OSError, ValueError):  # so that what is left in a buffer finds a place at the end
            os.dup2(nowhere().fileno(), self._stream.fileno())
        if error.errno == errno.EPIPE:
            if on_hangup is None:
                raise error
            on_hangup(signal.SIGPIPE)


def prepare() -> None:
    """Makes stdout and stderr of this process such streams; a number that is closed is opened to nowhere.

    Else the next file that is opened would get the number, and what libraries write to stderr would go into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if not isinstance(sys.stdout, Stream):
        stream = nowhere() if sys.stdout is None or sys.stdout.closed else sys.stdout
        sys.stdout = Stream(stream, must=True)  # type: ignore[assignment]
    if not isinstance(sys.stderr, Stream):
        sys.stderr = Stream(errors(), must=False)  # type: ignore[assignment]

"""First import of every script: makes the standard streams safe to write to, and Ctrl-C during imports quiet.

What is imported afterwards takes seconds, in which Python's KeyboardInterrupt would show a traceback or be taken for
an error of a package that is being imported.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

main_runs = False  # set by `cli.py`, which ends a KeyboardInterrupt in order


def _interrupted(signum: int, frame: FrameType | None) -> None:
    if main_runs and not _imports(frame):
        raise KeyboardInterrupt
    os._exit(128 + signum)


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, as in the background
    signal.signal(signal.SIGINT, _interrupted)
from prfl_jax.system import console  # noqa: E402 - after the handler

console.prepare()

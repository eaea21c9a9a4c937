"""First import of every script: huge pages, standard streams that are safe to write to, Ctrl-C quiet during imports.

What is imported afterwards takes seconds, in which Python's KeyboardInterrupt would show a traceback or be taken for
an error of a package that is being imported.
"""

from __future__ import annotations

import os
import signal
import sys

from prfl_jax.system import huge_pages

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
        if _of_imports(frame):
            return True
        frame = frame.f_back
    return False


def _imported_by_a_program() -> bool:
    """Whether the module that imports this one is the program that runs, not run or imported by another one."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and (frame.f_globals is globals() or _of_imports(frame)):
        frame = frame.f_back
    if frame is None or frame.f_globals.get("__name__") != "__main__":
        return False
    while (frame := frame.f_back) is not None:
        if frame.f_code.co_filename != "<frozen runpy>":  # which runs `python -m` from its first line
            return False
    return True


def _of_imports(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith("<frozen importlib")


if _imported_by_a_program():
    huge_pages.start_again()
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, as in the background
    signal.signal(signal.SIGINT, _interrupted)
from prfl_jax.system import console  # noqa: E402 - after the handler

console.prepare()

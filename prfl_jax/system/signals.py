"""Handles SIGTERM, Ctrl-C and warning signals: remembered, and acted on between chunks, so that a checkpoint is saved.

Python runs signal handlers only between bytecodes of the main thread, so none runs
while XLA compiles, which may take a minute. A separate thread is notified of the signal
at once and ends the process where nothing would be lost.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, NoReturn

from prfl_jax.system import console

_ENDS = ("SIGTERM", "SIGINT")
# a closed terminal, what a scheduler sends before it ends a job (SIGUSR1 or SIGUSR2), and a limit of seconds on the CPU
_WARNINGS = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
_SIGNALS = tuple(getattr(signal, name) for name in (*_ENDS, *_WARNINGS) if hasattr(signal, name))


class Interrupted(Exception):
    """A signal asked the run to end; `signum` says which."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def leave(code: int) -> NoReturn:
    """Ends the process now; a usual exit waits for what the device is still computing."""
    console.flush()
    os._exit(code)


class InterruptGuard:
    """A context in which the first of `_SIGNALS` is only noted; SIGTERM or SIGINT after SIGTERM or SIGINT act as usual.

    A warning may come twice (a shell sends SIGHUP on, a scheduler SIGTERM after it) and ends nothing that is being
    saved. A signal that the process was started to ignore, as by nohup, stays ignored. A reader of stdout or stderr
    that has gone counts as SIGPIPE.

    Args:
      again: the command that resumes, for the message of a process that ends at once.
    """

    def __init__(self, again: str = "the same command") -> None:
        self.again = again
        self._signum: int | None = None
        self._before: dict[int, Any] = {}
        self._nothing_to_save = threading.Event()
        self._pipe: tuple[int, int] | None = None

    @property
    def came(self) -> bool:
        """Whether a signal has come."""
        return self._signum is not None

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """As if this signal had come."""
        self._signum = self._signum or signum

    def check(self) -> None:
        """Raises `Interrupted` if a signal has come."""
        if self._signum is not None:
            raise Interrupted(self._signum)

    @contextmanager
    def nothing_to_save(self) -> Iterator[None]:
        """While inside, a signal ends the process at once: everything is on the disk already."""
        self.check()
        self._nothing_to_save.set()
        try:
            yield
        finally:
            self._nothing_to_save.clear()

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        self._signum = self._signum or signum
        if signal.Signals(signum).name in _ENDS:
            self._restore([number for number in self._before if signal.Signals(number).name in _ENDS])

    def _watch(self, reader: int) -> None:
        while number := os.read(reader, 1):
            if number[0] in _SIGNALS and self._nothing_to_save.is_set():
                name = signal.Signals(number[0]).name
                console.say(f"\n{name}: nothing new to save; to resume: {self.again}")
                leave(128 + number[0])
        os.close(reader)

    def _restore(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            signal.signal(number, self._before.pop(number))

    def __enter__(self) -> InterruptGuard:
        if threading.current_thread() is not threading.main_thread():
            return self  # elsewhere Python allows no handlers
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._remember)
        console.on_hangup = self.stop
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(self._pipe[0],), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore(list(self._before))
        if self._pipe is not None:
            signal.set_wakeup_fd(-1)
            os.close(self._pipe[1])  # ends the thread
            self._pipe = None
            console.on_hangup = None

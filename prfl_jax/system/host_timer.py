"""Measures host seconds, with compilation apart from running."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax

_EVENTS = ("/jax/core/compile/backend_compile_duration", "/jax/core/compile/jaxpr_to_mlir_module_duration")
_compiled_s = 0.0
_listening = False


def _listen(event: str, duration_secs: float, **_: str | int) -> None:
    global _compiled_s
    if event in _EVENTS:
        _compiled_s += duration_secs


class HostTimer:
    """Seconds by purpose; what JAX compiles in between is counted as `compile` instead.

    Attributes:
      seconds: purpose -> s.
    """

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        global _listening
        if not _listening:  # listeners cannot be taken back, so one for the process
            jax.monitoring.register_event_duration_secs_listener(_listen)
            _listening = True
        self.seconds: dict[str, float] = {"compile": 0.0, **(seconds or {})}

    def move(self, seconds: float, purpose: str, to: str) -> None:
        """Counts so many of a purpose's seconds as another's."""
        if seconds:
            self.seconds[purpose] -= seconds
            self.seconds[to] = self.seconds.get(to, 0.0) + seconds

    @contextmanager
    def spent(self, purpose: str) -> Iterator[None]:
        """Adds the time inside to `purpose`, less what was compiled."""
        begin, before = time.monotonic(), _compiled_s
        try:
            yield
        finally:
            took = time.monotonic() - begin
            compiled = min(took, _compiled_s - before)
            self.seconds["compile"] += compiled
            self.seconds[purpose] = self.seconds.get(purpose, 0.0) + took - compiled

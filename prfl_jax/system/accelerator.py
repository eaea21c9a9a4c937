"""Which backend and which devices programs are made for: those that JAX finds, or those of a machine that is not here.

A program that is only compiled, for another machine (`scripts/compile_check.py`), has to be traced as that machine
would trace it: some products, the axis of clients and the placement depend on the backend. So nothing else in the
package asks JAX.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices of one kind that programs are compiled for.

    Attributes:
      backend: cpu | gpu | tpu.
      devices: JAX's, which nothing need run on.
      memory: bytes that each has; None: not known.
    """

    backend: str
    devices: tuple[Any, ...]
    memory: int | None


_target: contextvars.ContextVar[Target | None] = contextvars.ContextVar("target", default=None)


@contextlib.contextmanager
def compiling_for(target: Target) -> Iterator[None]:
    """While inside, in this thread, `target` is what programs are made for."""
    token = _target.set(target)
    try:
        yield
    finally:
        _target.reset(token)


def backend() -> str:
    """`cpu`, `gpu` or `tpu`."""
    target = _target.get()
    return jax.default_backend() if target is None else target.backend


def devices() -> tuple[Any, ...]:
    """All devices, those of other processes of the run included."""
    target = _target.get()
    return tuple(jax.devices()) if target is None else target.devices


def elsewhere() -> bool:
    """Whether programs are made for a machine that is not here."""
    return _target.get() is not None


def on_cpu() -> bool:
    """Whether programs are made for the host's processor."""
    return backend() == "cpu"


def free_bytes(device: Any) -> int | None:
    """Bytes free on an accelerator; None where it does not report them."""
    target = _target.get()
    if target is not None:
        return target.memory
    stats = device.memory_stats()
    if not stats or "bytes_limit" not in stats:
        return None
    return int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))

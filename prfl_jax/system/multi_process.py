"""One run in several processes: each trains on its own devices; process 0 reads and writes, and broadcasts.

Everything that steers a run must be the same in all of them. What depends on files, on the host's
clock or on signals is therefore the lead's, or agreed upon, here. With one process all of this is
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from prfl_jax.system import jax_settings
from prfl_jax.system.errors import UserError, first_line

Value = TypeVar("Value")


def start(coordinator: str, count: int, index: int) -> None:
    """Joins the other processes; to be called before anything else of JAX.

    Args:
      coordinator: HOST:PORT at which the first process listens.
      count, index: how many there are, and which this is, from 0.

    Raises:
      UserError: they do not find each other.
    """
    try:
        jax.distributed.initialize(coordinator, count, index)
    except Exception as error:
        said = first_line(error)
        raise UserError(
            f"--coordinator={coordinator}: process {index} of {count} did not join ({said}); allowed is the HOST:PORT "
            "of process 0, the same for all"
        ) from None


def check_settings(mine: Mapping[str, Any]) -> None:
    """Whether all processes have the lead's settings (`jax_settings.settings`).

    Raises:
      UserError: in all of them, where one has another.
    """
    if alone():
        return
    found = jax_settings.difference(broadcast(dict(mine)), mine)
    if any_of(found is not None):
        here = "another process" if found is None else f"process {jax.process_index()}"
        said = "a setting of JAX" if found is None else f"{found[0]} is {found[1]!r} in process 0 and {found[2]!r} here"
        raise UserError(f"--process: {here} has other settings ({said}); allowed are the same in all processes")


def alone() -> bool:
    """Whether there is one process only."""
    return jax.process_count() == 1


def leads() -> bool:
    """Whether this process reads and writes files."""
    return jax.process_index() == 0


def broadcast(value: Value) -> Value:
    """Sends the lead's value (as JSON has it) to every process."""
    if alone():
        return value
    text = np.frombuffer(json.dumps(value).encode() if leads() else b"", np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    content = np.zeros(length, np.uint8)
    content[: len(text)] = text[:length]
    shared: Value = json.loads(np.asarray(multihost_utils.broadcast_one_to_all(content)).tobytes())
    return shared


def share_arrays(tree: Any) -> Any:
    """Sends the lead's NumPy arrays to every process; the others give arrays of the same shapes."""
    return tree if alone() else jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(tree))


def any_of(flag: bool) -> bool:
    """Whether a condition holds in any process."""
    return flag if alone() else bool(np.asarray(multihost_utils.process_allgather(np.int32(flag))).any())


def on_process_zero(function: Callable[[], Value], otherwise: Value) -> Value:
    """Calls `function` in the lead alone; a UserError there is raised in every process. Others return `otherwise`."""
    if alone():
        return function()
    value, problem = otherwise, None
    if leads():
        try:
            value = function()
        except UserError as error:
            problem = str(error)
    if (found := broadcast(problem)) is not None:
        raise UserError(found)
    return value


def fetch(array: Any) -> np.ndarray:
    """All of an array that may be spread over several processes, as NumPy."""
    if isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated):
        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
    return np.asarray(array)

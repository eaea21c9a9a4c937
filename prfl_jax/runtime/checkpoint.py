"""Saves and restores checkpoints between chunks: device state by Orbax, host state as JSON beside it.

Each save has a checksum of every array and of the host state. A newest checkpoint that cannot
be read, whose checksums differ, or which lacks part of the metrics file it was made after, is
set aside and the one before is used, with a message.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from prfl_jax.system import multi_process
from prfl_jax.system.cloud_storage import Bucket
from prfl_jax.system.errors import UserError, first_line
from prfl_jax.system.files import cannot, system_error


def named(tree: Any) -> dict[str, Any]:
    """Leaves by position: names that any storage takes."""
    return {f"leaf_{i:05d}": leaf for i, leaf in enumerate(jax.tree.leaves(tree))}


def host_copy(tree: Any) -> Any:
    """NumPy copies of device arrays.

    On CPU a NumPy view may share memory with the device array, which the next chunk
    is free to overwrite because its state is donated: so always copy.
    """
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), tree)


def host_checksum(host: dict[str, Any]) -> int:
    """CRC-32 of host values as JSON has them."""
    return zlib.crc32(json.dumps(json.loads(json.dumps(host)), sort_keys=True).encode())


def checksums(tree: Any) -> dict[str, int]:
    """CRC-32 of every array, by position."""
    flat = {name: np.ascontiguousarray(leaf).reshape(-1) for name, leaf in named(tree).items()}
    return {name: zlib.crc32(values.view(np.uint8).data) for name, values in flat.items()}


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds: state as NumPy arrays of its own, and host values as JSON has them."""

    state: Any
    host: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Restored:
    """A checkpoint: state as NumPy arrays (None: there is none), host values, messages about damaged ones."""

    state: Any
    host: dict[str, Any]
    messages: list[str]


# Orbax's background writers of one process share state: experiments in several threads (`batched_runs.py`) take turns.
_turn = threading.RLock()
_writer: list[ocp.CheckpointManager] = []  # the last one that began to write, unless it is known to have finished


def _finish_others(own: ocp.CheckpointManager) -> None:
    while _writer and _writer[-1] is not own:
        _writer.pop().wait_until_finished()


class Checkpoints:
    """The numbered checkpoints of one workdir; writing happens in the background.

    Args:
      folder: absolute path of the workdir.
      keep: how many of the last ones stay.
      bucket: where each is brought to, if anywhere.

    Raises:
      UserError: they cannot be written; in the constructor and in every method.
    """

    def __init__(self, folder: Path, keep: int, bucket: Bucket | None = None) -> None:
        self._folder, self._keep, self._bucket = folder / "checkpoints", keep, bucket
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=True)
        if jax.process_count() > 1:  # the process that has these reads and writes alone
            here = jax.process_index()
            own = ocp.options.MultiprocessingOptions(primary_host=here, active_processes={here})
            options = dataclasses.replace(options, multiprocessing_options=own, create=False)
        with self._telling(), _turn:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(self._folder, options=options)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if system_error(error) is None:
                raise
            raise cannot(self._folder, "be written", error) from error

    def save(self, snapshot: Snapshot) -> None:
        """Writes it as the next number."""
        # whatever has such a name: a dangling link is no checkpoint, but it blocks the name
        numbers = [int(path.name) for path in self._folder.iterdir() if path.name.isdecimal()]
        number = max([*self._manager.all_steps(), *numbers], default=0) + 1
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(named(snapshot.state)),
            host=ocp.args.JsonSave(
                {**snapshot.host, "checksums": checksums(snapshot.state), "host_crc32": host_checksum(snapshot.host)}
            ),
        )
        if self._bucket is not None:
            self.wait()
        with self._telling(), _turn:
            _finish_others(self._manager)
            self._manager.save(number, args=args)
            _writer[:] = [self._manager]
        if self._bucket is not None:
            self._bucket.start(number, self._keep)

    def restore(self, like: Any, misses: Callable[[dict[str, Any]], str] = lambda host: "") -> Restored:
        """The newest readable checkpoint.

        Args:
          like: a pytree of `ShapeDtypeStruct`s as saved.
          misses: returns what a checkpoint's host values lack for a resume; None where they are complete.

        Raises:
          UserError: there are checkpoints, but none can be read; nothing is changed then.
        """
        damaged: list[tuple[int, str]] = []
        for number in sorted(self._manager.all_steps(), reverse=True):
            try:
                state, host = self._read(number, like)
                if words := misses(host):
                    raise ValueError(words)
            except MemoryError:
                raise
            except PermissionError as error:
                raise cannot(error.filename or self._folder / str(number), "be read", error) from None
            except Exception as error:  # whatever a damaged file makes Orbax raise
                first = first_line(error)[:200]
                damaged.append((number, first))
                continue
            messages = [
                f"checkpoint {bad} is damaged ({why}); it is now {self._set_aside(bad)}, the one before is used"
                for bad, why in damaged
            ]
            return Restored(state, host, messages)
        if damaged:
            raise UserError(
                f"{self._folder}: none of {len(damaged)} checkpoints can be read ({damaged[0][1]}); nothing was "
                "changed; use a new --workdir, or remove that folder to start anew"
            )
        return Restored(None, {}, [])

    def _read(self, number: int, like: Any) -> tuple[Any, dict[str, Any]]:
        empty = {name: np.empty(leaf.shape, leaf.dtype) for name, leaf in named(like).items()}
        args = ocp.args.Composite(state=ocp.args.StandardRestore(empty), host=ocp.args.JsonRestore())
        with _turn:
            _finish_others(self._manager)
            read = self._manager.restore(number, args=args)
        host = dict(read["host"])
        want, of_host = host.pop("checksums"), host.pop("host_crc32", None)
        if of_host not in (None, host_checksum(host)):
            raise ValueError("the host's values have another checksum")
        found = checksums(read["state"])
        wrong = [name for name in {*want, *found} if found.get(name) != want.get(name)]
        if wrong:
            raise ValueError(f"{len(wrong)} arrays have another checksum")
        leaves = [read["state"][name] for name in named(like)]
        return jax.tree.unflatten(jax.tree.structure(like), leaves), host

    def _set_aside(self, number: int) -> str:
        source = self._folder / str(number)
        k = 0
        while (target := self._folder.parent / f"damaged_checkpoint_{number}_{k}").exists():
            k += 1
        with self._telling():
            source.rename(target)
        self._manager.reload()
        return target.name

    def wait(self) -> None:
        """Waits until everything is on the disk and in the bucket."""
        with self._telling(), _turn:
            self._manager.wait_until_finished()
        if self._bucket is not None:
            self._bucket.join()

    def close(self) -> None:
        with self._telling(), _turn:
            self._manager.close()
            if self._manager in _writer:
                _writer.remove(self._manager)


class SharedCheckpoints:
    """The checkpoints of a run in one or several processes: the lead reads and writes and broadcasts to the others."""

    def __init__(self, folder: Path, keep: int, bucket: Bucket | None = None) -> None:
        self._own = multi_process.on_process_zero(lambda: Checkpoints(folder, keep, bucket), None)

    def save(self, snapshot: Snapshot) -> None:
        """As `Checkpoints.save`."""
        if self._own is not None:
            self._own.save(snapshot)

    def restore(self, like: Any, misses: Callable[[dict[str, Any]], str]) -> Restored:
        """As `Checkpoints.restore`, in every process."""
        nothing = Restored(None, {}, [])
        found = multi_process.on_process_zero(
            lambda: nothing if self._own is None else self._own.restore(like, misses), nothing
        )
        if multi_process.alone():
            return found
        is_there, host, messages = multi_process.broadcast((found.state is not None, found.host, found.messages))
        if not is_there:
            return Restored(None, {}, messages)
        empty = jax.tree.map(lambda shape: np.zeros(shape.shape, shape.dtype), like)
        return Restored(multi_process.share_arrays(found.state if multi_process.leads() else empty), host, messages)

    def wait(self) -> None:
        """As `Checkpoints.wait`."""
        if self._own is not None:
            self._own.wait()

    def close(self) -> None:
        if self._own is not None:
            self._own.close()

"""A run's folder: whose it is, and that only one run writes there."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from prfl_jax.errors import InUse, UserError
from prfl_jax.files import write_text


class Workdir:
    """The folder of one run, locked while open.

    Args:
      path: made where it is not there.
      config: `to_dict` of the config.
      config_hash: of it.

    Raises:
      InUse: another run is writing there.
      UserError: the folder holds a run of another config, or it cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], config: dict[str, Any], config_hash: str) -> None:
        self.path = Path(path).absolute()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock: IO[str] = open(self.path / ".lock", "a+")  # noqa: SIM115 - lives as long as the run
        except OSError as error:
            raise UserError(f"--workdir={path}: {error.strerror}; allowed: a folder that can be written to") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise InUse(f"--workdir={path}: another run is writing there; wait, or use a new folder") from None
        try:
            self._claim(config, config_hash)
        except BaseException:
            self.close()
            raise

    def _claim(self, config: dict[str, Any], config_hash: str) -> None:
        file = self.path / "config.json"
        if not file.exists():
            others = [p.name for p in self.path.iterdir() if not p.name.startswith((".lock", ".config.json."))]
            if others:
                raise UserError(f"--workdir={self.path}: holds {others[0]!r} but no config.json; use an empty folder")
            content = {"config_hash": config_hash, "config": config}
            write_text(file, json.dumps(content, indent=1, sort_keys=True) + "\n")
            return
        try:
            there = json.loads(file.read_text())
            same, theirs = there["config_hash"] == config_hash, there["config"]
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(f"{file}: cannot be read ({error}); use a new --workdir") from None
        if not same:
            difference = _difference(theirs, config)
            raise UserError(f"--workdir={self.path}: holds a run of another config ({difference}); use a new folder")

    def close(self) -> None:
        """Releases the folder."""
        self._lock.close()

    def __enter__(self) -> Workdir:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Scratch:
    """A folder of a process that does not lead (see `processes.py`); it is removed in the end."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="prfl_jax_")
        self.path = Path(self._folder.name)

    def __enter__(self) -> Scratch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()


def open_workdir(path: str | os.PathLike[str], config: dict[str, Any], config_hash: str) -> Workdir | Scratch:
    """The run's folder, locked, in the process that leads; a folder of its own in any other.

    Raises:
      UserError: as `Workdir`, in all processes.
    """
    from prfl_jax import processes

    found = processes.by_lead(lambda: Workdir(path, config, config_hash), None)
    return Scratch() if found is None else found


def _difference(there: Any, here: Any, key: str = "config") -> str:
    """The first key in which two configs differ, in words."""
    if isinstance(there, dict) and isinstance(here, dict):
        for name in sorted({*there, *here}):
            if there.get(name) != here.get(name):
                return _difference(there.get(name), here.get(name), f"{key}.{name}")
    return f"{key} is {there!r} there and {here!r} here"

"""The folder of a run, local or in a bucket: its lock, its ownership by one config, its files."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from prfl_jax.system.cloud_storage import Bucket, bucket_url, local_folder
from prfl_jax.system.errors import InUse, UserError
from prfl_jax.system.files import cannot, check_letters, user_path, write_text


def check_place(path: str | os.PathLike[str]) -> str | None:
    """The address of a run's folder in a bucket; None where the folder is local.

    Raises:
      UserError: it cannot be a run's folder, whatever it holds.
    """
    url = bucket_url(path)
    if url is None:
        check_letters("--workdir", user_path("--workdir", path))
    return url


class Workdir:
    """The folder of one run, locked while open.

    Args:
      path: made where it is not there; or an address in a bucket.
      config: `to_dict` of the config.
      config_hash: of it.

    Raises:
      InUse: another run is writing there.
      UserError: the folder holds a run of another config, or it cannot be written.

    Attributes:
      path: the folder of this machine where the run works.
      bucket: where it is brought to, if anywhere.
    """

    def __init__(self, path: str | os.PathLike[str], config: dict[str, Any], config_hash: str) -> None:
        url = check_place(path)
        self._named = str(path)
        try:
            self.path = user_path("--workdir", path).absolute() if url is None else local_folder(url)
            if url is None and self.path.is_dir():
                self._check(config, config_hash)  # before anything is written there
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock: IO[str] = open(self.path / ".lock", "a+")  # noqa: SIM115 - lives as long as the run
        except (OSError, ValueError) as error:
            said = getattr(error, "strerror", None) or error
            raise UserError(f"--workdir={path}: {said}; allowed: a folder that can be written to") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise InUse(f"--workdir={path}: another run is writing there; wait, or use a new folder") from None
        self.bucket = None if url is None else Bucket(url, self.path)
        try:
            if self.bucket is not None:
                self.bucket.fetch()
            self._claim(config, config_hash)
            self.put()
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> Any:
        """The folder as the user names it: `path`, or an `etils.epath.Path` into the bucket."""
        return self.path if self.bucket is None else self.bucket.root

    def inside(self, name: str) -> str | Path:
        """A folder inside this one for another run."""
        return self.path / name if self.bucket is None else f"{self.bucket.url}/{name}"

    def put(self) -> None:
        """Uploads what is new to the bucket, if there is one."""
        if self.bucket is not None:
            self.bucket.put()

    def _claim(self, config: dict[str, Any], config_hash: str) -> None:
        if not self._check(config, config_hash):
            content = {"config_hash": config_hash, "config": config}
            write_text(self.path / "config.json", json.dumps(content, indent=1, sort_keys=True) + "\n")

    def _check(self, config: dict[str, Any], config_hash: str) -> bool:
        """Whether the folder holds a run of this config; raises UserError where it holds another. Writes nothing."""
        file = self.path / "config.json"
        try:
            names = sorted(path.name for path in self.path.iterdir())  # first: config.json is a run's first file
        except OSError as error:
            raise cannot(self.path, "be read", error) from None
        if not file.exists():
            others = [name for name in names if not name.startswith((".lock", ".config.json."))]
            if others:
                raise UserError(f"--workdir={self._named}: holds {others[0]!r} but no config.json; use an empty folder")
            return False
        try:
            there = json.loads(file.read_text(encoding="utf-8-sig"))
            same, theirs = there["config_hash"] == config_hash, there["config"]
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(f"{file}: cannot be read ({error}); use a new --workdir") from None
        if not same:
            difference = _difference(theirs, config)
            raise UserError(f"--workdir={self._named}: holds a run of another config ({difference}); use a new folder")
        return True

    def close(self) -> None:
        """Releases the folder; the local copy of a bucket's folder is removed."""
        if self.bucket is not None:
            self.bucket.close()
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()

    def __enter__(self) -> Workdir:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Scratch:
    """A folder of a process that does not lead (see `multi_process.py`); it is removed in the end."""

    bucket = None

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="prfl_jax_")
        self.path = self.address = Path(self._folder.name)

    def inside(self, name: str) -> str | Path:
        """As `Workdir.inside`; nothing is written there."""
        return self.path / name

    def put(self) -> None:
        """Does nothing; the lead process uploads."""

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
    from prfl_jax.system import multi_process

    found = multi_process.on_process_zero(lambda: Workdir(path, config, config_hash), None)
    return Scratch() if found is None else found


def _difference(there: Any, here: Any, key: str = "config") -> str:
    """The first key in which two configs differ, in words."""
    if isinstance(there, dict) and isinstance(here, dict):
        for name in sorted({*there, *here}):
            if there.get(name) != here.get(name):
                return _difference(there.get(name), here.get(name), f"{key}.{name}")
    return f"{key} is {there!r} there and {here!r} here"

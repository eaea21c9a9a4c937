"""A workdir in a bucket: a local folder whose new files are uploaded after every checkpoint.

Object stores have no appending, renaming or locking, so a run works in a local folder as ever. What is new there after
a checkpoint is put into the bucket under the same names, and last `workdir.json`, which lists what belongs to the run:
until that one object is replaced, the bucket holds the run as it was. It also names the machine that writes. A machine
that resumes a run enters itself there, and the previous one, if it is still alive, stops at its next checkpoint.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import threading
import uuid
from pathlib import Path, PurePosixPath
from typing import Any

from prfl_jax.system.errors import UserError
from prfl_jax.system.files import cannot, system_error

PACKAGES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs", "hf": "huggingface_hub"}  # what etils needs for each scheme
INDEX = "workdir.json"
_CLAIMED = ("config.json", "metrics.jsonl", "report.json")  # without an index these belong to another run
_POLL_S = 0.05


def bucket_url(path: str | os.PathLike[str]) -> str | None:
    """`path` where it names a place in a bucket; None for a folder of this machine.

    Raises:
      UserError: a scheme that is not known, or an address that `pathlib` has changed.
    """
    text = os.fspath(path)
    match = re.match(r"(\w{2,}):/(/?)(.*)", text, re.DOTALL)
    if match is None or (not match[2] and match[1] not in PACKAGES):
        return None
    if match[1] not in PACKAGES or not match[2] or not match[3].strip("/"):
        known = ", ".join(f"{scheme}://" for scheme in PACKAGES)
        raise UserError(f"--workdir={text}: allowed is a folder, or an address as text that begins with {known}")
    return text.rstrip("/")


def local_folder(url: str) -> Path:
    """Where a run in a bucket works, under `~/.cache/prfl_jax` (or `$XDG_CACHE_HOME/prfl_jax`)."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    return home.absolute() / "prfl_jax" / "buckets" / hashlib.sha256(url.encode()).hexdigest()[:16]


class Bucket:
    """A place in a bucket and the local folder that mirrors it.

    Args:
      url: as `bucket_url` returns it.
      folder: made and locked already; what it holds besides hidden files is replaced by `fetch`.

    Raises:
      UserError: a package is missing for this kind of bucket.
    """

    def __init__(self, url: str, folder: Path) -> None:
        from etils import epath

        self.url, self.folder, self.root = url, folder, epath.Path(url)
        self._me = {"token": uuid.uuid4().hex, "host": socket.gethostname(), "process": os.getpid()}
        self._there: dict[str, tuple[int, int]] = {}  # what the bucket holds, as (size, time) of the local file
        self._owned = False
        self._under_way: threading.Thread | None = None
        self._failed: BaseException | None = None
        self._closing = threading.Event()

    def fetch(self) -> None:
        """Brings the run that is there into the folder."""
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != ".lock":
                path.unlink()
        index = self._index()
        if index is None:
            for name in _CLAIMED:
                if self._asked(lambda name=name: (self.root / name).exists()):
                    raise UserError(f"--workdir={self.url}: holds {name!r} but no {INDEX}; use an empty place")
            return
        for name in index["files"]:
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if self._asked(lambda name=name, file=file: _copy(self.root / name, file)):
                self._there[name] = _signature(file)

    def put(self, keep: int | None = None) -> None:
        """Uploads what is new in the folder, and takes the run over the first time.

        Args:
          keep: so many checkpoints, the last ones; None: all.

        Raises:
          UserError: it cannot be written, or another machine has taken the run over.
        """
        index = self._index()
        if self._owned and (index or {}).get("owner", {}).get("token") != self._me["token"]:
            other = (index or {}).get("owner", {}).get("host")
            raise UserError(f"--workdir={self.url}: {other} has resumed this run; this process has stopped")
        files = {name: _signature(self.folder / name) for name in self._names(keep)}
        for name, signature in files.items():
            if self._there.get(name) != signature:
                self._asked(lambda name=name: _copy(self.folder / name, self.root / name), writing=True)
        content = {"owner": self._me, "files": {name: size for name, (size, _) in files.items()}}
        text = json.dumps(content, indent=1, sort_keys=True) + "\n"
        self._asked(lambda: (self.root / INDEX).write_text(text), writing=True)
        self._owned = True
        for name in self._there.keys() - files.keys():
            self._asked(lambda name=name: (self.root / name).unlink(missing_ok=True), writing=True)
        self._there = files

    def start(self, checkpoint: int, keep: int) -> None:
        """`put` in the background, once this checkpoint is whole; `join` waits for it."""

        def work() -> None:
            try:
                while not (self.folder / "checkpoints" / str(checkpoint)).is_dir():
                    if self._closing.wait(_POLL_S):
                        return
                self.put(keep)
            except BaseException as error:  # raised by `join`
                self._failed = error

        self._under_way = threading.Thread(target=work, daemon=True)
        self._under_way.start()

    def join(self) -> None:
        """Until what `start` began is done; raises what went wrong there."""
        if self._under_way is not None:
            self._under_way.join()
            self._under_way = None
        if self._failed is not None:
            error, self._failed = self._failed, None
            raise error

    def close(self) -> None:
        """Ends what waits; nothing is written any more."""
        self._closing.set()
        if self._under_way is not None:
            self._under_way.join()

    def _names(self, keep: int | None) -> list[str]:
        """Files of the run: no locks, no parts, no checkpoint that is being written or removed."""
        steps = self.folder / "checkpoints"
        numbers = sorted(int(p.name) for p in steps.iterdir() if p.name.isdigit()) if steps.is_dir() else []
        kept = {str(number) for number in numbers[-(keep or len(numbers) or 1) :]}
        names = []
        for root, folders, files in os.walk(self.folder):
            here = PurePosixPath(Path(root).relative_to(self.folder).as_posix())
            if str(here) == "checkpoints":
                folders[:] = [name for name in folders if name in kept]
            names += [str(here / name) for name in files if not name.startswith(".") or "checkpoints" in here.parts]
        return sorted(names)

    def _index(self) -> dict[str, Any] | None:
        """What `workdir.json` says; None: it is not there."""
        path = self.root / INDEX
        text = self._asked(path.read_text)
        if text is None:
            return None
        try:
            index = json.loads(text)
            names = [PurePosixPath(name) for name in index["files"]]
            safe = isinstance(index["owner"], dict) and not any(p.is_absolute() or ".." in p.parts for p in names)
        except (ValueError, KeyError, TypeError):
            safe = False
        if not safe:
            raise UserError(f"{path}: cannot be read (not what a run writes); use a new --workdir")
        return index  # type: ignore[no-any-return]

    def _asked(self, function: Any, writing: bool = False) -> Any:
        """What the store answers; None where an object to be read is not there."""
        try:
            return function()
        except FileNotFoundError as error:
            if writing:
                raise self._refused(error) from None
            return None
        except ImportError:
            package = PACKAGES[self.url.partition(":")[0]]
            raise UserError(f"--workdir={self.url}: needs {package}; pip install {package}") from None
        except Exception as error:  # of a store's own client, whose kinds are many
            if system_error(error) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise cannot(self.folder, "be written", error) from None
            raise self._refused(error) from None

    def _refused(self, error: Exception) -> UserError:
        said = (str(error).strip().splitlines() or [""])[0][:200]
        return UserError(
            f"--workdir={self.url}: the bucket refuses ({type(error).__name__}: {said}); once it answers, the same "
            "command resumes the run from there"
        )


def _signature(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _copy(source: Any, target: Any) -> bool:
    with source.open("rb") as read, target.open("wb") as written:
        shutil.copyfileobj(read, written, 1 << 20)
    return True

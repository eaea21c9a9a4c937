"""An object store without a network: objects as files of one folder, named by their whole key.

Like the real ones it has no folders, no appending and no renaming, and an object is there when it is closed.
"""

from __future__ import annotations

import io
import os
import urllib.parse
from pathlib import Path
from typing import Any

import fsspec

STORE = "FAKE_BUCKET"  # environment variable: the folder


class Upload(io.BytesIO):
    """An object being written."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    def close(self) -> None:
        if not self.closed:
            part = self.file.with_suffix(".uploading")
            part.write_bytes(self.getvalue())
            os.replace(part, self.file)
        super().close()


class FakeBucket(fsspec.AbstractFileSystem):
    """What etils finds behind gs://."""

    protocol = ("gcs", "gs")
    cachable = False
    refuses_at = 0  # the so many-th writing from now on; 0: none
    writes = 0

    def __init__(self, **more: Any) -> None:
        super().__init__()

    def _file(self, path: str) -> Path:
        return Path(os.environ[STORE]) / urllib.parse.quote(self._strip_protocol(path), safe="")

    def info(self, path: str, **more: Any) -> dict[str, Any]:
        file, name = self._file(path), self._strip_protocol(path)
        if file.is_file():
            return {"name": name, "size": file.stat().st_size, "type": "file"}
        if any(key.startswith(f"{name}/") for key in keys()):
            return {"name": name, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def ls(self, path: str, detail: bool = True, **more: Any) -> list[Any]:
        name = self._strip_protocol(path)
        found = sorted({f"{name}/{key[len(name) + 1 :].split('/')[0]}" for key in keys() if key.startswith(f"{name}/")})
        return [self.info(key) for key in found] if detail else found

    def _open(self, path: str, mode: str = "rb", **more: Any) -> Any:
        if mode == "rb":
            return open(self._file(path), "rb")
        if mode != "wb":
            raise NotImplementedError("objects are written whole")
        FakeBucket.writes += 1
        if FakeBucket.writes == FakeBucket.refuses_at:
            raise ConnectionError("503 of the fake store")
        return Upload(self._file(path))

    def _rm(self, path: str) -> None:
        self._file(path).unlink()


def keys() -> list[str]:
    """Of all objects that are whole."""
    names = (path.name for path in Path(os.environ[STORE]).iterdir() if path.suffix != ".uploading")
    return sorted(urllib.parse.unquote(name) for name in names)


def content() -> dict[str, bytes]:
    """All objects."""
    store = Path(os.environ[STORE])
    return {key: (store / urllib.parse.quote(key, safe="")).read_bytes() for key in keys()}


def register() -> None:
    """Puts it behind gs://."""
    fsspec.register_implementation("gcs", FakeBucket, clobber=True)

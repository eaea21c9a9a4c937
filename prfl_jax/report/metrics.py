"""`metrics.jsonl`: one JSON line per event of a run, appended as the run goes.

Every record is a dict with the keys `kind` and `window`. Numbers read back are
the numbers written, to the bit.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from prfl_jax.report.plain import has_non_finite, plain
from prfl_jax.system.errors import UserError
from prfl_jax.system.files import cannot


def metrics_line(record: Mapping[str, Any]) -> str:
    """`record` as one line of JSON without the line end.

    Numbers that are not finite become null, and the key `not_finite` lists the
    record's keys in which that happened.
    """
    tidy = plain(record)
    lost = sorted(str(key) for key, value in record.items() if has_non_finite(value))
    if lost:
        tidy["not_finite"] = lost
    return json.dumps(tidy, allow_nan=False, separators=(",", ":"))


class MetricsWriter:
    """Appends records to a file; each is handed to the system before `write` returns.

    A checkpoint saves `bytes_written` and `crc32` after a `sync`; on resume `truncate_at`
    restores the file to what it was then.

    Raises:
      UserError: the file cannot be written; here and in all that follows.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with self._telling():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # no buffer: what a full disk does not take is not written later either
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - lives as long as the run
        self._crc32: int | None = None  # of the whole file, where it is known

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise cannot(self.path, "be written", error) from error

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends one record (numbers, NumPy or JAX values, lists, dicts)."""
        line = (metrics_line(record) + "\n").encode()
        before, rest = self.crc32(), memoryview(line)
        with self._telling():
            while rest:
                rest = rest[self._file.write(rest) :]
        self._crc32 = zlib.crc32(line, before)

    def sync(self) -> None:
        """Waits until what was written is on the disk; before a checkpoint is saved."""
        with self._telling():
            os.fsync(self._file.fileno())

    def bytes_written(self) -> int:
        """Length of the file, to be saved with a checkpoint after `sync`."""
        return self._file.tell()

    def crc32(self) -> int:
        """Of the whole file, likewise."""
        if self._crc32 is None:
            self._crc32 = _crc32(self.path, None)
        return self._crc32

    def misses(self, length: int, crc32: int | None = None) -> str:
        """What the file lacks of what it was when it was so long, in words; empty: nothing, but it may be longer."""
        there = os.path.getsize(self.path)
        if there < length:
            return f"{self.path}: has {there} bytes, the checkpoint was made after {length}"
        if crc32 is not None and _crc32(self.path, length) != crc32:
            return f"{self.path}: its first {length} bytes are not those that the checkpoint was made after"
        return ""

    def truncate_at(self, length: int) -> None:
        """Drops what was written after a checkpoint that recorded this `bytes_written`.

        Raises:
          UserError: when the file is shorter, so that a report made from it would have
            a hole. The file is then left as it was.
        """
        if words := self.misses(length):
            raise UserError(f"{words}; use a new --workdir, or remove the newest checkpoints")
        with self._telling():
            self._file.truncate(length)
            self._file.seek(length)
        self._crc32 = None

    def close(self) -> None:
        """Closes the file; closing twice does no harm."""
        self._file.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """The records of a metrics file, in order, one at a time; a last line cut in the middle is left out.

    Raises:
      UserError: for a missing file, or a damaged line that is not the last.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; scripts/train.py writes it into its --workdir")
    damaged = 0
    for number, (_, record) in enumerate(_lines(path), start=1):
        if damaged:
            raise UserError(f"{path}: line {damaged} is damaged; the run's --workdir has to be made again")
        if record is None:
            damaged = number
        else:
            yield record


def _crc32(path: Path, length: int | None) -> int:
    """Of the first so many bytes; None: of all."""
    crc32, left = 0, length
    with open(path, "rb") as file:
        while part := file.read(1 << 20 if left is None else min(left, 1 << 20)):
            crc32 = zlib.crc32(part, crc32)
            left = None if left is None else left - len(part)
    return crc32


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """Each line as bytes and as record; None for a line that is cut or not a record."""
    with open(path, "rb") as file:
        for text in file:
            record = None
            if text.endswith(b"\n"):
                try:
                    record = json.loads(text)
                except ValueError:
                    pass
            whole = isinstance(record, dict) and "kind" in record and "window" in record
            yield text, record if whole else None

"""Writes and reads `metrics.jsonl`: a line of JSON for each window, evaluation and interval of a run.

Every record is a dict with the keys `kind` and `window`. A number that is read is the number that was written, to the
bit.
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
    """Appends records to a file; the operating system has each one before `write` returns.

    A checkpoint saves `bytes_written` and `crc32` after a `sync`; on resume `truncate_at`
    restores the file to what it was then.

    Raises:
      UserError: the file cannot be written; from the constructor and from all methods.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with self._errors_named():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # without a buffer: what a full disk refuses is not written later either
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - lives as long as the run
        self._crc32: int | None = None  # of the whole file, where it is known

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise cannot(self.path, "be written", error) from error

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends one record (numbers, NumPy or JAX values, lists, dicts)."""
        line = (metrics_line(record) + "\n").encode()
        before, rest = self.crc32(), memoryview(line)
        with self._errors_named():
            while rest:
                rest = rest[self._file.write(rest) :]
        self._crc32 = zlib.crc32(line, before)

    def sync(self) -> None:
        """Waits until all records are on the disk; to be called before a checkpoint is saved."""
        with self._errors_named():
            os.fsync(self._file.fileno())

    def bytes_written(self) -> int:
        """Length of the file, to be saved with a checkpoint after `sync`."""
        return self._file.tell()

    def crc32(self) -> int:
        """CRC-32 of the whole file, to be saved with a checkpoint after `sync`."""
        if self._crc32 is None:
            self._crc32 = _crc32(self.path, None)
        return self._crc32

    def misses(self, length: int, crc32: int | None = None) -> str:
        """Why the file does not begin with the content that a checkpoint recorded, in words; empty if it does.

        Args:
          length: bytes of the file at the checkpoint; the file may be longer by now.
          crc32: of these bytes; None: only the length is compared.
        """
        there = os.path.getsize(self.path)
        if there < length:
            return f"{self.path}: has {there} bytes, the checkpoint was made after {length}"
        if crc32 is not None and _crc32(self.path, length) != crc32:
            return f"{self.path}: its first {length} bytes are not those that the checkpoint was made after"
        return ""

    def truncate_at(self, length: int) -> None:
        """Drops what was written after a checkpoint that recorded this `bytes_written`.

        Raises:
          UserError: the file is shorter, so that records would be missing from the report. It is left as it was.
        """
        if words := self.misses(length):
            raise UserError(f"{words}; use a new --workdir, or remove the newest checkpoints")
        with self._errors_named():
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
    """Reads the records of a metrics file one at a time, in order; an incomplete last line is skipped.

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
    """CRC-32 of the first `length` bytes of a file; None: of all."""
    crc32, left = 0, length
    with open(path, "rb") as file:
        while part := file.read(1 << 20 if left is None else min(left, 1 << 20)):
            crc32 = zlib.crc32(part, crc32)
            left = None if left is None else left - len(part)
    return crc32


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """Each line as bytes and as record; None in place of the record if the line is incomplete or no record."""
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

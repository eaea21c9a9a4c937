"""`metrics.jsonl`: one JSON line per event of a run, appended as the run goes.

Every record is a dict with the keys `kind` and `window`. Numbers read back are
the numbers written, to the bit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from prfl_jax.errors import UserError
from prfl_jax.report.plain import has_non_finite, plain

# Said once, at the end of a run; a run that goes on says them again.
_CLOSING_KINDS = ("final", "end")


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

    To resume from a checkpoint made after window n, everything up to and including
    window n has to be written (and `sync`ed) before that checkpoint is saved; then
    `truncate_after(n)` restores the file to what it was at the checkpoint.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - lives as long as the run

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends one record (numbers, NumPy or JAX values, lists, dicts)."""
        self._file.write(metrics_line(record) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Waits until what was written is on the disk; before a checkpoint is saved."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def truncate_after(self, window: int) -> None:
        """Drops what was written after the checkpoint of `window` (0: drops everything).

        Dropped are records of later windows, closing records (`final`, `end`), and
        all from the first damaged line on, such as one that was cut in the middle.

        Raises:
          UserError: when the file does not reach back to `window`, so that a report
            made from it would have a hole. The file is then left as it was.
        """
        self._file.close()
        try:
            kept, reached = [], 0
            for text, record in _lines(self.path):
                if record is None:
                    break
                if record["kind"] in _CLOSING_KINDS or record["window"] > window or window == 0:
                    continue
                kept.append(text)
                if record["kind"] == "window":
                    reached = max(reached, record["window"])
            if reached != window:
                raise UserError(
                    f"{self.path}: its records end at window {reached}, the checkpoint is at window {window}; "
                    "use a new --workdir, or remove the checkpoints after that window"
                )
            spare = self.path.with_name(self.path.name + ".tmp")
            with open(spare, "wb") as out:
                out.writelines(kept)
                out.flush()
                os.fsync(out.fileno())
            os.replace(spare, self.path)
        finally:
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115

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

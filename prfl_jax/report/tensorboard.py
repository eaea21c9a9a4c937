"""Writes TensorBoard event files of a run (`--tensorboard`). The step of every scalar is that of `report/steps.py`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prfl_jax.report.steps import step_at
from prfl_jax.system.errors import UserError

MOST_CLIENTS = 50  # whose densities are written


class TensorBoard:
    """Writes the scalars of each record of a run under `FOLDER/tensorboard`.

    A resumed run starts another file there. It may repeat scalars that the first file has, equal to the bit.

    Args:
      folder: the run's folder.
      eval_every_s: between two evaluations of the run, simulated s.

    Raises:
      UserError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path, eval_every_s: float) -> None:
        try:
            import tensorboardX
        except ModuleNotFoundError:
            raise UserError("--tensorboard: needs tensorboardX; pip install -e '.[tensorboard]'") from None
        self._make, self._folder = tensorboardX.SummaryWriter, folder / "tensorboard"
        self._eval_every_s = eval_every_s
        self._writer: Any = None

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Writes the next record of `metrics.jsonl`."""
        at_s = record.get("t_s", record.get("end_s"))
        if at_s is None:
            return
        step = step_at(at_s, self._eval_every_s)
        if self._writer is None:
            # Files are named by the second: a run resumed within that second must not replace the first file.
            self._writer = self._make(str(self._folder), filename_suffix=f".{time.time_ns()}")
        for name, value in scalars(record):
            if value is not None and math.isfinite(value):
                self._writer.add_scalar(name, value, step)
        self._writer.flush()  # a process that ends by a signal does not call close

    def close(self) -> None:
        """Writes everything to the disk."""
        if self._writer is not None:
            self._writer.close()


def scalars(record: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    """The (name, value) pairs of a record."""
    if record["kind"] == "eval":
        for model in ("mask", "fedavg"):
            for what, value in (record.get(model) or {}).items():
                yield f"{what}/{model}", value
        for name in ("updates", "bytes_up", "bytes_down", "bytes_client_down"):
            yield f"run/{name}", record[name]
    elif record["kind"] == "window":
        number = len(record["arrivals"])
        yield "window/arrivals", number
        for name in ("loss", "staleness", "round_s") if number else ():
            values = [math.nan if value is None else value for value in record[name]]
            yield f"window/{name}", sum(values) / number
    elif record["kind"] == "interval":
        for client, percent in enumerate(record["percents"][:MOST_CLIENTS]):
            yield f"density/client_{client}", percent / 100

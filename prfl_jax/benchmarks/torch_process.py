"""Starts the PyTorch worker process (`torch_worker`) and asks it for rounds through a pipe."""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from prfl_jax.benchmarks.worker import Worker, WorkerFailed, python_path

MISSING = "PyTorch is not installed: pip install -e '.[bench]'"


class TorchUnavailable(Exception):
    """There is no PyTorch to compare with; the text says why."""


class TorchProcess(Worker):
    """The PyTorch loop in a separate process.

    Args:
      data: the arrays of `Workload.host_data`.
      params: float32 arrays by `layer/leaf`.
      options: `steps`, `batch_size`, `lr`, `threads`, and `device`, cpu or cuda (cpu if PyTorch has no cuda).

    Attributes:
      about: `version`, `threads`, `device` of the worker.

    Raises:
      TorchUnavailable: PyTorch is not installed, or the process does not start.
    """

    def __init__(self, data: dict[str, np.ndarray], params: dict[str, np.ndarray], options: dict[str, Any]) -> None:
        if importlib.util.find_spec("torch") is None:
            raise TorchUnavailable(MISSING)
        self._folder = tempfile.TemporaryDirectory()
        file = Path(self._folder.name) / "clients.npz"
        arrays: dict[str, Any] = {"options": np.array(json.dumps(options)), **data, **params}
        np.savez(file, **arrays)
        command = [sys.executable, "-m", "prfl_jax.benchmarks.torch_worker", str(file)]
        try:
            super().__init__(command, environment={"PYTHONPATH": python_path()})
        except WorkerFailed as why:
            raise TorchUnavailable(f"PyTorch could not be run: {why}") from None

    def round(self) -> float:
        """Runs one round of all clients; returns its s, measured in the worker.

        Raises:
          TorchUnavailable: the worker has failed.
        """
        try:
            return float(self.ask("round")["seconds"])
        except WorkerFailed as why:
            raise TorchUnavailable(f"PyTorch could not be run: {why}") from None

    def close(self) -> None:
        super().close()
        self._folder.cleanup()

    def __enter__(self) -> TorchProcess:
        return self

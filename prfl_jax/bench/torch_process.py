"""Starts `torch_worker` and asks it for rounds."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

MISSING = "PyTorch is not installed: pip install -e '.[bench]'"


class TorchUnavailable(Exception):
    """PyTorch cannot be compared with; the text says why."""


class TorchProcess:
    """The PyTorch loop in a process of its own.

    Args:
      data: of `Workload.host_data`.
      params: float32 arrays by `layer/leaf`.
      options: `steps`, `batch_size`, `lr`, `threads`, and `device`, cpu or cuda (cpu where PyTorch has no cuda).

    Attributes:
      about: `version`, `threads`, `device` of the worker.

    Raises:
      TorchUnavailable: it is not installed, or does not start.
    """

    def __init__(self, data: dict[str, np.ndarray], params: dict[str, np.ndarray], options: dict[str, Any]) -> None:
        if importlib.util.find_spec("torch") is None:
            raise TorchUnavailable(MISSING)
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
        self._folder = tempfile.TemporaryDirectory()
        file = Path(self._folder.name) / "clients.npz"
        arrays: dict[str, Any] = {"options": np.array(json.dumps(options)), **data, **params}
        np.savez(file, **arrays)
        self._errors = open(Path(self._folder.name) / "stderr", "w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "prfl_jax.bench.torch_worker", str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        try:
            self.about = self._answer()
        except TorchUnavailable:
            self.close()
            raise

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            said = self._errors.read().strip().splitlines() or ["it left without a word"]
            raise TorchUnavailable(f"PyTorch could not be run: {said[-1]}")
        return json.loads(line)

    def round(self) -> float:
        """One round of all clients; s, as the worker itself measured them."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("round\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it has ended; the answer says why
        return float(self._answer()["seconds"])

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
        except OSError:
            pass  # it is gone already
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()
        self._folder.cleanup()

    def __enter__(self) -> TorchProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""Starts benchmark workers and talks to them: one request line in, one line of JSON out; a worker times itself."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prfl_jax.system import huge_pages


class WorkerFailed(Exception):
    """A worker could not be started, or has ended; the text says why."""


class Worker:
    """A worker process in its own session.

    Args:
      command: the command line.
      patience_s: s without an answer after which the worker is taken to hang.
      environment: variables that are added to its environment.

    Attributes:
      about: its first answer, which describes the worker.

    Raises:
      WorkerFailed: the worker did not start, or gave no first answer.
    """

    def __init__(
        self, command: Sequence[str], patience_s: float = 600.0, environment: Mapping[str, str] | None = None
    ) -> None:
        self._patience_s, self._said = patience_s, b""
        self._errors = tempfile.TemporaryFile("w+")
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                # as a user would start it; prfl_jax asks for huge pages by itself
                env={**huge_pages.without(os.environ), **(environment or {})},
                start_new_session=True,
            )
        except OSError as error:
            self._errors.close()
            raise WorkerFailed(f"{command[0]}: {error.strerror}") from None
        try:
            self.about = self._answer()
        except WorkerFailed:
            self.close()
            raise

    def ask(self, what: str) -> dict[str, Any]:
        """Sends one line; returns the answer.

        Raises:
          WorkerFailed: no answer came.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{what}\n".encode())
            self._process.stdin.flush()
        except OSError:
            pass  # the worker has ended; `_answer` raises the reason
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        ends, pipe = time.monotonic() + self._patience_s, self._process.stdout.fileno()
        while b"\n" not in self._said:
            ready, _, _ = select.select([pipe], [], [], max(0.0, ends - time.monotonic()))
            if not ready:
                raise WorkerFailed(f"no answer within {self._patience_s:.0f} s{self._last_words(': ')}")
            more = os.read(pipe, 65536)
            if not more:
                raise WorkerFailed(self._last_words() or "it ended without an error message")
            self._said += more
        line, _, self._said = self._said.partition(b"\n")
        return json.loads(line)

    def _last_words(self, before: str = "") -> str:
        self._errors.seek(0)
        said = [line for line in self._errors.read().splitlines() if line.strip()]
        return before + said[-1].strip() if said else ""

    def peak_memory_mb(self) -> float:
        """Returns the sum of the peak memory of each of its processes, MB."""
        return sum(_peak_bytes(pid) for pid in _tree(self._process.pid)) / 1e6

    def close(self) -> None:
        """Ends the worker: closes its stdin, waits at most 10 s, and kills what is left of it and of its children."""
        tree = _tree(self._process.pid)
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
        except OSError:
            pass  # it has ended already
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            pass
        for pid in tree:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def python_path() -> str:
    """Returns the PYTHONPATH of a worker that imports this package: the package's own folder first."""
    root = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(path for path in (root, os.environ.get("PYTHONPATH")) if path)


def _tree(root: int) -> list[int]:
    """Returns the ids of a session's leader `root`, of the processes in its session, and of all their descendants."""
    parents: dict[int, int] = {}
    found = [root]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            _, parent, _, session = stat.rpartition(")")[2].split()[:4]
            parents[int(entry.name)] = int(parent)
            if int(session) == root and int(entry.name) != root:
                found.append(int(entry.name))
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid and child not in found]
    return found


def _peak_bytes(pid: int) -> int:
    """Returns the largest resident memory that a process has had; 0 if it has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0

"""Compares the speed of two commits in one run: rounds of FedAvg on the peers' workloads, and the suite `kernels`.

Both commits' processes are alive together and take turns, so that a change of the machine's speed meets both. The speed
is the old commit's time over the new one's in the same turn: below 1, the new commit is slower.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from prfl_jax.benchmarks.commits import checkout, environment
from prfl_jax.benchmarks.peers import PAUSE_S, TINY, WORKLOADS
from prfl_jax.benchmarks.suite import hardware
from prfl_jax.benchmarks.timing import alternate
from prfl_jax.benchmarks.worker import Worker
from prfl_jax.system import provenance
from prfl_jax.system.files import write_text

KERNELS_WORKER = Path(__file__).with_name("commit_kernels_worker.py")
ROUNDS = 9  # of each workload, after one that does not count
KERNEL_TURNS = 8  # after one that does not count
KERNEL_RUNS = 3  # of each kernel in a turn, of which the least counts


def compare_speed(old: str, new: str, out: Path, small: bool = False) -> int:
    """Measures both commits, prints a row each and writes `speed.json` into the new commit's folder under `out`.

    Raises:
      UserError: one is no commit of this clone.
    """
    folders, load = {"old": checkout(old, out), "new": checkout(new, out)}, os.getloadavg()
    rows = []
    for row in speed_rows(folders, ROUNDS, small):
        print(line(row), flush=True)
        rows.append(row)
    about = {key: folder.name for key, folder in folders.items()}
    file = folders["new"] / "speed.json"
    write_text(file, json.dumps({**about, "hardware": hardware(load), "rows": rows}, indent=1) + "\n")
    print(file)
    return 0


def speed_rows(folders: Mapping[str, Path], repeats: int, small: bool = False) -> Iterator[dict[str, Any]]:
    """Yields a row as soon as it is measured: its name, s of each turn by commit, and the speed.

    Args:
      folders: of the checkouts `old` and `new` (`commits.checkout`).
      repeats: rounds of each workload that count.
      small: a smoke test's sizes.

    Raises:
      WorkerFailed: a commit's process ended or does not answer.
    """
    yield from _rounds(folders, repeats, small)
    yield from _kernels(folders, small)


def _rounds(folders: Mapping[str, Path], repeats: int, small: bool) -> Iterator[dict[str, Any]]:
    works = {"W1": TINY} if small else WORKLOADS
    with tempfile.TemporaryDirectory() as scratch:
        for name, work in works.items():
            file = Path(scratch) / f"{name}.npz"
            work.write(file, False, provenance.cores())
            with ExitStack() as stack:
                workers = {}
                for key, folder in folders.items():
                    script = folder / "files" / "scripts" / "peers" / "prfl_jax_worker.py"
                    beside = {"PYTHONSAFEPATH": ""}  # it imports what lies beside it
                    workers[key] = stack.enter_context(_worker(folder, [str(script), str(file)], beside))
                for what in ("round", "evaluate"):
                    tasks = {key: _seconds(worker, what) for key, worker in workers.items()}
                    yield _row(f"{name} {what}", alternate(tasks, repeats, 0.0 if small else PAUSE_S))


def _kernels(folders: Mapping[str, Path], small: bool) -> Iterator[dict[str, Any]]:
    runs: dict[str, dict[str, list[float]]] = {}
    size, repeats = ("small", "1") if small else ("full", str(KERNEL_RUNS))
    with ExitStack() as stack:
        workers = {
            key: stack.enter_context(_worker(folder, [str(KERNELS_WORKER), size, repeats]))
            for key, folder in folders.items()
        }
        turn = 0
        while turn <= KERNEL_TURNS:
            order = list(workers) if turn % 2 else list(reversed(workers))
            answers = {key: workers[key].ask("next") for key in order}
            (kernel,) = {answer["kernel"] for answer in answers.values()}
            if kernel is None:
                turn += 1
            elif turn:
                for key, answer in answers.items():
                    runs.setdefault(kernel, {}).setdefault(key, []).append(answer["seconds"])
    for kernel, by_commit in runs.items():
        yield _row(kernel, by_commit)


def _worker(folder: Path, command: list[str], variables: Mapping[str, str] | None = None) -> Worker:
    return Worker([sys.executable, *command], environment={**environment(folder), **(variables or {})})


def _seconds(worker: Worker, what: str) -> Callable[[], float]:
    return lambda: float(worker.ask(what)["seconds"])


def _row(name: str, runs: Mapping[str, list[float]]) -> dict[str, Any]:
    speeds = [old / new for old, new in zip(runs["old"], runs["new"], strict=True)]
    return {
        "name": name,
        "old_s": runs["old"],
        "new_s": runs["new"],
        "speed": statistics.median(speeds),
        "speed_min": min(speeds),
        "speed_max": max(speeds),
    }


def line(row: Mapping[str, Any]) -> str:
    """Returns a row for people; times in ms."""
    old, new = (1e3 * statistics.median(row[f"{key}_s"]) for key in ("old", "new"))
    speed = f"{row['speed']:.3f} ({row['speed_min']:.3f} to {row['speed_max']:.3f})"
    return f"{row['name']:28} old {old:9.2f} ms   new {new:9.2f} ms   speed {speed}"

"""Compares two commits on one machine, to the bit: records, final models and reports of the same runs.

The runs are a short one of every strategy that both commits have (a narrow Conv2, 400 images, 30 windows), with faults
off and on, and the first windows of the quickstart at full size. Stored hashes would not suffice, since the last bits
depend on the processor.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prfl_jax import strategies
from prfl_jax.report import comparable, read_metrics
from prfl_jax.system.errors import UserError

ROOT = Path(__file__).resolve().parent.parent.parent
WORKER = Path(__file__).with_name("commit_worker.py")
# Such a run takes seconds, yet has stale updates, several density decisions and evaluations.
SHORT: dict[str, Any] = {
    "rounds": 30,
    "compare": [],
    "model.width": 0.1,
    "model.size_mb": 8.0,
    "data.train_limit": 400,
    "data.test_limit": 200,
    "clients.number": 4,
    "clients.up_mb_s": [5.0, 4.0, 1.5, 1.0],
    "clients.down_mb_s": [20.0, 16.0, 6.0, 4.0],
    "local.steps": 2,
    "local.batch_size": 10,
    "density.interval": 4,
    "density.patience": 1,
    "window.dt_s": 3.0,
    "eval_every_s": 20.0,
}
FAULTS = {f"faults.{kind}": 0.1 for kind in ("dropout", "crash", "lost_upload", "repeated_upload")}
MOST_SHOWN = 3  # printed differences of one run


@dataclasses.dataclass(frozen=True)
class Request:
    """The flags of scripts/compare_commits.py."""

    old: str
    new: str
    out: Path
    quickstart_windows: int = 40
    ignore: tuple[str, ...] = ()


def cases(names: list[str], quickstart_windows: int) -> dict[str, dict[str, Any]]:
    """Returns the overrides of the quickstart for each run of these strategies, by the name of the run."""
    runs: dict[str, dict[str, Any]] = {}
    for name in names:
        runs[name] = {"strategy": name, **SHORT}
        runs[f"{name}_faults"] = {"strategy": name, **SHORT, **FAULTS}
    if quickstart_windows:
        runs["quickstart"] = {"rounds": quickstart_windows, "compare": []}
    return runs


def checkout(commit: str, out: Path) -> Path:
    """Writes the files of a commit to `files/` in a folder of `out` named after its hash; returns that folder.

    Raises:
      UserError: this clone has no such commit.
    """
    git = ["git", "-C", str(ROOT)]
    found = subprocess.run([*git, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"], capture_output=True)
    if found.returncode:
        raise UserError(f"{commit!r} is no commit of this clone; allowed: a hash, a branch, a tag")
    commit = found.stdout.decode().strip()
    folder = out / commit[:12]
    if not (folder / "files" / "setup.py").exists():
        shutil.rmtree(folder / "files", ignore_errors=True)
        (folder / "files").mkdir(parents=True)
        archive = subprocess.run([*git, "archive", commit], check=True, capture_output=True)
        subprocess.run(["tar", "-x", "-C", str(folder / "files")], input=archive.stdout, check=True)
    return folder


def _strategies(folder: Path) -> set[str]:
    """Names of the strategies of a commit."""
    names = "from prfl_jax import strategies; print(*strategies.ROWS)"
    said = subprocess.run(
        [sys.executable, "-c", names], check=True, capture_output=True, text=True, env=environment(folder)
    )
    return set(said.stdout.split())


def environment(folder: Path) -> dict[str, str]:
    """Returns the variables of a process that imports a commit's package, whatever its working directory holds."""
    return {**os.environ, "PYTHONPATH": str(folder / "files"), "PYTHONSAFEPATH": "1"}


def differences(old: Path, new: Path, ignore: tuple[str, ...] = ()) -> Iterator[str]:
    """Yields a line for each difference between the folders of two runs; none if they are equal to the bit.

    Args:
      ignore: dotted keys `report.KEY` and `record.KEY` that are not compared; the name of a group stands for all its
        keys. `records.KIND` leaves out all records of a kind.
    """
    a, b = (_flat(comparable(json.loads((run / "report.json").read_text())), "report") for run in (old, new))
    for key in _unequal(a, b, ignore):
        yield f"{key}: {str(a.get(key, '(absent)'))[:80]} / {str(b.get(key, '(absent)'))[:80]}"
    records = [
        [
            _flat(record, "record")
            for record in read_metrics(run / "metrics.jsonl")
            if f"records.{record['kind']}" not in ignore
        ]
        for run in (old, new)
    ]
    if len(records[0]) != len(records[1]):
        yield f"{len(records[0])} / {len(records[1])} records"
    for number, (a, b) in enumerate(zip(*records, strict=False), 1):
        keys = _unequal(a, b, (*ignore, "record.host_s"))
        if keys:
            yield f"record {number} ({a['record.kind']}): {', '.join(keys)}"
    with np.load(old / "final_model.npz") as before, np.load(new / "final_model.npz") as after:
        for key in sorted(set(before.files) | set(after.files)):
            if key not in before.files or key not in after.files:
                yield f"final_model.npz: {key} is only in {'the old' if key in before.files else 'the new'}"
            elif before[key].dtype != after[key].dtype or before[key].tobytes() != after[key].tobytes():
                yield f"final_model.npz: {key}"


def _unequal(old: Mapping[str, Any], new: Mapping[str, Any], ignore: tuple[str, ...]) -> list[str]:
    """Returns the keys that only one of two flat records has, or whose values differ."""
    keys = {key for key in old.keys() | new.keys() if key not in old or key not in new or old[key] != new[key]}
    return sorted(key for key in keys if not any(f"{key}.".startswith(f"{name}.") for name in ignore))


def _flat(tree: Any, head: str) -> dict[str, Any]:
    """Returns the leaves of a tree by dotted key, which begins with `head`; a list is one leaf."""
    if not isinstance(tree, Mapping):
        return {head: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{head}.{key}")
    return flat


def compare_commits(request: Request) -> int:
    """Makes the runs that are missing under `out` and compares them; returns 0 if all are equal, else 1."""
    folders = [checkout(commit, request.out) for commit in (request.old, request.new)]
    old_names, new_names = (_strategies(folder) for folder in folders)
    names = [name for name in strategies.ROWS if name in old_names & new_names]
    names += sorted((old_names & new_names) - set(names))
    runs = cases(names, request.quickstart_windows)
    for folder in folders:
        subprocess.run(
            [sys.executable, str(WORKER), str(folder)], input=json.dumps(runs), text=True, check=True,
            cwd=folder / "files", env=environment(folder),
        )  # fmt: skip
    unequal = 0
    for name in runs:
        found = list(differences(folders[0] / name, folders[1] / name, request.ignore))
        unequal += bool(found)
        print(f"{name}: {'equal' if not found else f'{len(found)} differences'}")
        for line in found[:MOST_SHOWN]:
            print(f"  {line}")
    print(f"{len(runs) - unequal} of {len(runs)} runs are equal to the bit, {folders[0].name} and {folders[1].name}")
    return 1 if unequal else 0

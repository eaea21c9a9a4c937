"""A full disk: one line names the file and what to do, and with room again the same command ends the run as if nothing
had been."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from marked import slow
from paths import HELPERS, ROOT

from prfl_jax.config import cli
from prfl_jax.report import comparable
from prfl_jax.system.signals import Interrupted


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system itself then writes no file beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def code(experiment, folder: Path) -> int:
    with pytest.raises(SystemExit) as left:
        cli.run(lambda: experiment.run(folder, progress=False) and 0, ["scripts/train.py"])
    return left.value.code


@pytest.mark.parametrize(
    ("size", "names"),
    [
        slow(0, "config.json"),
        slow(1000, "config.json"),
        slow(4500, "metrics.jsonl"),  # config.json has 3,800
        (30_000, "checkpoints"),
    ],
)
def test_files_that_find_no_room(experiment, whole, tmp_path, capsys, size, names):
    folder = tmp_path / "run"
    with files_of_at_most(size):
        assert code(experiment, folder) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said and "Exception" not in said
    assert said.startswith("train.py: ") and len(said.splitlines()) == 1, said
    assert (
        f"{folder}/{names}: cannot be written" in said
        and "free some space there, then give the same command again" in said
    )
    again = experiment.run(folder, progress=False)
    assert comparable(again.report) == comparable(whole.report)
    tiny.same(again.params, whole.params)


@pytest.mark.slow
def test_no_room_when_a_signal_comes(experiment, whole, tmp_path, capsys):
    """The checkpoint before it is still there."""
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        experiment.run(folder, guard=tiny.StopAt(6), progress=False)
    steps = {path.name for path in (folder / "checkpoints").glob("[0-9]*")}
    with files_of_at_most(20_000), pytest.raises(SystemExit) as left:
        cli.run(lambda: experiment.run(folder, guard=tiny.StopAt(5), progress=False) and 0, ["scripts/train.py"])
    assert left.value.code == 2 and "checkpoints: cannot be written" in capsys.readouterr().err
    assert steps <= {path.name for path in (folder / "checkpoints").glob("[0-9]*")}
    again = experiment.run(folder, progress=False)
    assert comparable(again.report) == comparable(whole.report)


@pytest.mark.processes
def test_a_small_disk_of_its_own(tmp_path):
    """A file system of 8 MB that something else fills, in a namespace of this user's own."""
    (tmp_path / "disk").mkdir()
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-Urm", "true"], capture_output=True).returncode:
        pytest.skip("no namespace can be made here")
    call = [unshare, "-Urm", sys.executable, str(HELPERS / "disk_worker.py"), str(tmp_path), "100000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(call, capture_output=True, text=True, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"code": 2, "same": True}
    assert len(done.stderr.splitlines()) == 1 and "disk/run/checkpoints: cannot be written" in done.stderr, done.stderr
    assert "No space left on device); free some space there, then give the same command again" in done.stderr

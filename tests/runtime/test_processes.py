"""One run in two processes equals the same run in one, also after a signal that only one of them heard."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from paths import HELPERS, ROOT

pytestmark = pytest.mark.processes

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(HELPERS)])}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


def together(calls) -> list[subprocess.CompletedProcess]:
    """Runs commands at the same time; what each said."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(call, env=ENVIRONMENT, cwd=ROOT, **pipes) for call in calls]
    try:
        said = [process.communicate(timeout=400) for process in started]
    finally:
        for process in started:
            process.kill()
    return [
        subprocess.CompletedProcess(call, process.returncode, *texts)
        for call, process, texts in zip(calls, started, said, strict=True)
    ]


def run(count, workdir, *stop) -> list[dict]:
    where = f"localhost:{free_port()}"
    worker = [sys.executable, str(HELPERS / "processes_worker.py"), where, str(count)]
    done = together([[*worker, str(index), "prfl", str(workdir), *stop] for index in range(count)])
    assert all(process.returncode == 0 for process in done), [process.stderr[-2000:] for process in done]
    return [json.loads(process.stdout.splitlines()[-1]) for process in done]


def test_two_processes_equal_one(tmp_path):
    (one,) = run(1, tmp_path / "one")
    assert run(2, tmp_path / "two", "9") == [{"interrupted": 15}] * 2  # the second heard of it, both saved and left
    both = run(2, tmp_path / "two")
    assert both[0] == both[1]
    assert (one.pop("devices"), both[0].pop("devices")) == (2, 4)
    assert one.pop("accuracy") == pytest.approx(both[0].pop("accuracy"), abs=0.011)
    assert one == both[0] and one["windows"] == 20  # arrivals, bytes and seconds, to the bit
    weights = [np.load(tmp_path / name / "params.npz") for name in ("one", "two")]
    for name in weights[0].files:
        apart = np.abs(weights[0][name] - weights[1][name]).max() / np.abs(weights[0][name]).max()
        assert apart <= 1e-5
    assert not list(tmp_path.glob("two/prfl_jax_*")) and (tmp_path / "two/report.json").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--processes=2"], "--coordinator"),
        (["--coordinator=here", "--processes=2"], "--coordinator=here: allowed is HOST:PORT"),
        (["--coordinator=localhost:1", "--processes=1"], "--processes=1"),
        (["--coordinator=localhost:1", "--processes=2", "--process=2"], "--process=2"),
    ],
)
def test_mistakes_are_one_line(flags, words):
    call = [sys.executable, "scripts/train.py", "--config=configs/quickstart.py", *flags]
    (done,) = together([call])
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_folder_in_use_is_told_to_both(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    where, config = f"--coordinator=localhost:{free_port()}", "--config=configs/quickstart.py"
    call = [sys.executable, "scripts/train.py", config, f"--workdir={tmp_path}", where, "--processes=2"]
    done = together([[*call, f"--process={index}"] for index in (0, 1)])
    for process in done:
        assert process.returncode == 2, process.stderr[-900:]
        assert "holds 'thesis.tex' but no config.json" in process.stderr
        assert "Traceback" not in process.stderr

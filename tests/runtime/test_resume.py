"""Runs that are stopped, killed or damaged end as if nothing had happened."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from marked import slow_except
from paths import HELPERS, ROOT

import prfl_jax
from prfl_jax.report import comparable, read_report
from prfl_jax.runtime import chunk_runner, loop
from prfl_jax.runtime.checkpoint import Checkpoints, Snapshot, host_copy
from prfl_jax.runtime.workdir import Workdir
from prfl_jax.system.errors import UserError
from prfl_jax.system.signals import Interrupted, InterruptGuard

SMALL = {
    "rounds": 17,
    "compare": (),
    "model.name": "tiny:TwoLayers",
    "model.classes": None,
    "model.size_mb": 26.4,
    "eval_every_s": 30.0,
    "density.interval": 4,
    "density.patience": 1,
    "data.train_limit": 1000,
    "data.test_limit": 200,
    "local.steps": 2,
    "local.lr": 0.25,
    "engine.chunk_windows": 3,
}


def small_config(**changes: object):
    return prfl_jax.load_config(ROOT / "configs/quickstart.py", {**SMALL, **changes})


@pytest.fixture(scope="module")
def experiment():
    return prfl_jax.Experiment(small_config())


@pytest.fixture(scope="module")
def whole(experiment, tmp_path_factory):
    """An uninterrupted run."""
    return experiment.run(tmp_path_factory.mktemp("whole") / "run", progress=False)


def same(run, whole) -> None:
    assert comparable(run.report) == comparable(whole.report)
    tiny.same(run.params, whole.params)


def test_a_run_leaves_what_it_promises(whole):
    names = {p.name for p in whole.workdir.iterdir()}
    assert {"report.json", "metrics.jsonl", "config.json", "figure.png", "final_model.npz", "checkpoints"} <= names
    report = read_report(whole.workdir / "report.json")
    assert report["windows"] == 17 and report["ended"]["how"] == "rounds"
    assert report["host"]["compile_s"] > 0 and report["host"]["steady_s"] > 0
    loaded = prfl_jax.load_model(whole.workdir / "final_model.npz")
    tiny.same(loaded, whole.params)


@pytest.mark.parametrize("checks", slow_except([2, 3, 5, 8, 13, 21, 34], 3, 13))
def test_an_interrupted_run_goes_on_to_the_same_end(experiment, whole, tmp_path, checks):
    with pytest.raises(Interrupted):
        experiment.run(tmp_path / "run", guard=tiny.StopAt(checks), progress=False)
    same(experiment.run(tmp_path / "run", progress=False), whole)


class ComesInside(InterruptGuard):
    """A signal that comes when it is asked for the n-th time whether one came."""

    def __init__(self, asked: int) -> None:
        super().__init__()
        self.left = asked

    @property
    def came(self) -> bool:
        self.left -= 1
        return self.left <= 0

    def check(self) -> None:
        if self.left <= 0:
            raise Interrupted(signal.SIGTERM)


class Late:
    """A result that is not ready when first asked."""

    def __init__(self, array: jax.Array) -> None:
        self.array, self.ready = array, False

    def is_ready(self) -> bool:
        self.ready, before = True, self.ready
        return before

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self.array)


@pytest.mark.parametrize("chunk", slow_except([1, 2, 6], 2))
def test_a_signal_inside_a_long_chunk_does_not_wait_for_its_end(experiment, whole, tmp_path, chunk, monkeypatch):
    sim = experiment.simulation
    executable = sim.executable

    def slow_executable(*args):
        run = executable(*args)

        def chunk(*inputs):
            state, seen = run(*inputs)
            return state, seen._replace(losses=Late(seen.losses))

        chunk.memory_analysis = run.memory_analysis
        return chunk

    with monkeypatch.context() as patch:
        observe = chunk_runner.ChunkSizer.observe
        patch.setattr(
            chunk_runner.ChunkSizer, "observe", lambda self, amount, took_s: observe(self, amount, 1.0 * amount)
        )  # 1 s an arrival
        patch.setattr(sim, "executable", slow_executable)
        guard = ComesInside(chunk)
        with pytest.raises(Interrupted):
            experiment.run(tmp_path / "run", guard=guard, progress=False)
    assert guard.left == 0
    same(experiment.run(tmp_path / "run", progress=False), whole)


@pytest.mark.slow
def test_interrupted_again_and_again(experiment, whole, tmp_path):
    for _ in range(60):
        try:
            same(experiment.run(tmp_path / "run", guard=tiny.StopAt(4), progress=False), whole)
            return
        except Interrupted:
            pass
    pytest.fail("the run does not advance")


def test_starting_a_finished_run_again_changes_nothing(experiment, whole, tmp_path):
    shutil.copytree(whole.workdir, tmp_path / "run")
    same(experiment.run(tmp_path / "run", progress=False), whole)


@pytest.mark.slow
def test_chunk_length_may_change_on_resume(whole, experiment, tmp_path):
    with pytest.raises(Interrupted):
        experiment.run(tmp_path / "run", guard=tiny.StopAt(9), progress=False)
    other = prfl_jax.Experiment(small_config(**{"engine.chunk_windows": 1}))
    again = other.run(tmp_path / "run", progress=False)
    tiny.same(again.params, whole.params)


def newest(folder: Path) -> Path:
    return max((folder / "checkpoints").glob("[0-9]*"), key=lambda p: int(p.name))


@pytest.mark.parametrize("damage", slow_except(["missing", "cut", "flipped", "host"], "cut"))
def test_a_damaged_newest_checkpoint_falls_back(experiment, whole, tmp_path, damage, capsys):
    folder = tmp_path / "run"
    for _ in range(2):
        with pytest.raises(Interrupted):
            experiment.run(folder, guard=tiny.StopAt(6), progress=False)
    step = newest(folder)
    files = sorted((p for p in step.rglob("*") if p.is_file() and "state" in p.parts), key=lambda p: p.stat().st_size)
    if damage == "missing":
        shutil.rmtree(step / "state")
    elif damage == "cut":
        os.truncate(files[-1], files[-1].stat().st_size // 2)
    elif damage == "flipped":
        content = bytearray(files[-1].read_bytes())
        content[len(content) // 2] ^= 0xFF
        files[-1].write_bytes(content)
    else:
        for file in (step / "host").rglob("*"):
            if file.is_file():
                file.write_text("{")
    run = experiment.run(folder, progress=True)
    same(run, whole)
    said = capsys.readouterr().err
    assert f"checkpoint {step.name} is damaged" in said and "resumed after window" in said
    assert list(folder.glob(f"damaged_checkpoint_{step.name}_*"))


def test_a_metrics_file_that_lost_its_end_is_refused(experiment, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        experiment.run(folder, guard=tiny.StopAt(9), progress=False)
    metrics = folder / "metrics.jsonl"
    os.truncate(metrics, metrics.stat().st_size - 10)
    with pytest.raises(UserError, match="metrics.jsonl: has"):
        experiment.run(folder, progress=False)


def test_where_no_checkpoint_can_be_read_nothing_is_touched(experiment, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        experiment.run(folder, guard=tiny.StopAt(9), progress=False)
    shutil.rmtree(newest(folder) / "state")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match="none of 1 checkpoints can be read"):
        experiment.run(folder, progress=False)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_other_data_of_the_same_name_is_refused(experiment, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        experiment.run(folder, guard=tiny.StopAt(9), progress=False)
    other = prfl_jax.Experiment(small_config())
    other.simulation.dataset.y_test[0] += 1
    try:
        with pytest.raises(UserError, match="not those this --workdir began with"):
            other.run(folder, progress=False)
    finally:
        other.simulation.dataset.y_test[0] -= 1


def test_a_checkpoint_of_another_version_is_refused(experiment, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(loop, "FORMAT", loop.FORMAT - 1)
        with pytest.raises(Interrupted):
            experiment.run(tmp_path / "run", guard=tiny.StopAt(5), progress=False)
    with pytest.raises(UserError, match="another version of prfl_jax"):
        experiment.run(tmp_path / "run", progress=False)


def test_a_workdir_of_another_config_is_refused(whole, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in whole.workdir.rglob("*")}
    other = prfl_jax.Experiment(small_config(**{"local.lr": 0.2}))
    with pytest.raises(UserError, match=r"another config \(config.local.lr is 0.25 there and 0.2 here\)"):
        other.run(whole.workdir, progress=False)
    assert {p: p.stat().st_mtime_ns for p in whole.workdir.rglob("*")} == before


def test_two_runs_never_share_a_folder(experiment, tmp_path):
    folder = Workdir(tmp_path / "run", {}, "x")
    with pytest.raises(UserError, match="another run is writing there"):
        Workdir(tmp_path / "run", {}, "x")
    folder.close()
    Workdir(tmp_path / "run", {}, "x").close()


def test_a_folder_that_is_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="holds 'thesis.tex' but no config.json"):
        Workdir(tmp_path, {}, "x")


def test_saving_copies_before_donated_buffers_are_overwritten(tmp_path):
    step = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)
    tree = {"a": jnp.zeros((400, 4000)), "b": jnp.arange(7)}
    like = jax.eval_shape(lambda: tree)
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save(Snapshot(host_copy(tree), {"n": 0}))
    for _ in range(20):  # while the save is under way
        tree = jax.block_until_ready(step(tree))
    checkpoints.wait()
    found = checkpoints.restore(like)
    np.testing.assert_array_equal(found.state["a"], np.zeros((400, 4000)))
    np.testing.assert_array_equal(found.state["b"], np.arange(7))
    assert found.host == {"n": 0} and not found.messages
    checkpoints.close()


def test_host_copy_shares_no_memory():
    array = jnp.arange(1000.0)
    copy = host_copy({"x": array})["x"]
    assert not np.shares_memory(copy, np.asarray(array))


def test_only_the_last_checkpoints_stay(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for n in range(5):
        checkpoints.save(Snapshot(host_copy({"a": jnp.full(3, n)}), {"n": n}))
    checkpoints.wait()
    assert checkpoints.restore({"a": jax.ShapeDtypeStruct((3,), jnp.int32)}).host == {"n": 4}
    checkpoints.close()
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").glob("[0-9]*")) == [4, 5]


# --- as a process ---


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(HELPERS)}


def start(call: list[str]) -> subprocess.Popen:
    return subprocess.Popen(call, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finish(call: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(call, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


def command(folder: Path, **more: object) -> list[str]:
    changes = {**SMALL, "checkpoint.every_s": 1.0, **more}
    overrides = [f"--config.{key}={value}" for key, value in changes.items()]
    script = str(ROOT / "scripts/train.py")
    return [sys.executable, script, f"--config={ROOT}/configs/quickstart.py", f"--workdir={folder}", *overrides]


def wait_for_window(folder: Path, window: int, process: subprocess.Popen) -> None:
    for _ in range(1200):
        file = folder / "metrics.jsonl"
        if file.exists() and file.read_text().count('"kind":"window"') >= window:
            return
        if process.poll() is not None:
            pytest.fail(f"ended early: {process.communicate()[1]}")
        time.sleep(0.05)
    pytest.fail("no window in a minute")


@pytest.mark.processes
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_run_starts_is_answered_at_once(how, tmp_path):
    """Also inside a compilation, where Python's own handlers wait."""
    process = start(command(tmp_path / "run"))
    for _ in range(600):
        if (tmp_path / "run" / "config.json").exists():
            break
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(how)
    begin = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - begin < 10
    assert process.returncode == 128 + how and "to resume:" in err and "Traceback" not in err


@pytest.mark.processes
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_signals_and_the_same_command_again(how, tmp_path):
    folder = tmp_path / "run"
    more = {"rounds": 600, "eval_every_s": 1000.0, "density.interval": 50, "engine.chunk_windows": 2}
    call = command(folder, **more)
    process = start(call)
    wait_for_window(folder, 20, process)
    process.send_signal(how)
    begin = time.monotonic()
    _, err = process.communicate(timeout=60)
    if how == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert time.monotonic() - begin < 10
        assert process.returncode == 128 + how
        assert "to resume:" in err and str(folder) in err and "Traceback" not in err
    done = finish(call)
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "report.json").read_text())
    straight = finish(command(tmp_path / "other", **more))
    assert straight.returncode == 0, straight.stderr
    assert comparable(report) == comparable(json.loads((tmp_path / "other" / "report.json").read_text()))


@pytest.mark.processes
def test_two_processes_in_one_folder(tmp_path):
    folder = tmp_path / "run"
    first = start(command(folder, rounds=100_000))
    wait_for_window(folder, 1, first)
    second = finish(command(folder, rounds=100_000))
    first.kill()
    first.communicate()
    assert second.returncode == 2
    assert second.stderr.strip().splitlines()[-1].startswith("train.py: --workdir=")
    assert "another run is writing there" in second.stderr and "Traceback" not in second.stderr

"""Streams that are closed or gone, signals that warn, and Ctrl-C while packages are imported."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time

import pytest
import tiny
from marked import slow_except
from paths import ROOT

from prfl_jax.report.progress import Progress
from prfl_jax.runtime.workdir import Workdir
from prfl_jax.system import console
from prfl_jax.system.errors import UserError
from prfl_jax.system.signals import Interrupted, InterruptGuard

CLOCK = [sys.executable, "scripts/clock.py", "--config=configs/table3_fedasyn.py", "--windows=20"]


@pytest.fixture
def signals_arrive():
    """Signals as in the foreground of a shell: under nohup or in the background a process ignores some."""
    handlers = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals_arrive")
@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGTERM", "SIGINT"])
def test_signals_are_remembered(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with InterruptGuard() as guard:
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        with pytest.raises(Interrupted) as came:
            guard.check()
        assert came.value.signum == number
    assert signal.getsignal(number) is before


@pytest.mark.usefixtures("signals_arrive")
def test_a_warning_that_comes_again_ends_nothing():
    with InterruptGuard() as guard:
        for name in ("SIGHUP", "SIGHUP", "SIGTERM", "SIGUSR1"):
            os.kill(os.getpid(), getattr(signal, name))
        time.sleep(0.01)
        with pytest.raises(Interrupted, match="SIGHUP"):
            guard.check()


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with InterruptGuard() as guard:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
            guard.check()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_reader_that_has_gone_ends_the_run_in_order():
    reader, writer = os.pipe()
    os.close(reader)
    stream = console.Stream(open(writer, "w"), must=False)  # noqa: SIM115
    with InterruptGuard() as guard:
        stream.write("a line\n")
        stream.flush()
        with pytest.raises(Interrupted) as came:
            guard.check()
    assert came.value.signum == signal.SIGPIPE
    stream.write("nobody reads this\n")
    stream.flush()
    reader, writer = os.pipe()
    os.close(reader)
    alone = console.Stream(open(writer, "w"), must=True)  # noqa: SIM115
    alone.write("x")
    with pytest.raises(BrokenPipeError):
        alone.flush()


@pytest.mark.parametrize("stream", [None, object(), "closed"])
def test_stderr_of_any_kind(monkeypatch, tmp_path, stream):
    if stream == "closed":
        stream = open(tmp_path / "f", "w")  # noqa: SIM115
        stream.close()
    elif stream is not None:
        stream = type("Odd", (), {"write": lambda self, text: None, "flush": lambda self: None})()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress(10) as bar:
        bar.update(10, 1.0)
        bar.write("text")
    console.say("text")


@pytest.mark.parametrize("closed", slow_except([">&-", "2>&-", "<&- >&- 2>&-"], "<&- >&- 2>&-"))
def test_closed_streams(tmp_path, closed):
    out = tmp_path / "clock.json"
    call = " ".join([*CLOCK, f"--out={out}", closed])
    done = subprocess.run(["bash", "-c", call], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120)
    assert done.returncode == 0 and out.exists()


def test_a_closed_pipe_is_quiet(tmp_path):
    call = " ".join([*CLOCK, f"--out={tmp_path / 'clock.json'}", "2>&1 | true; echo ${PIPESTATUS[0]}"])
    done = subprocess.run(
        ["bash", "-c", call], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.stdout == "141\n" and done.stderr == ""


# The script, in which the import of one module takes long: it says that it has begun, and waits. Tests that run in the
# background of a shell ignore SIGINT, and so would the script.
SLOW_IMPORT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
import prfl_jax.system.early, os, sys, time, runpy
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.write(1, b".")
            time.sleep(60)
sys.meta_path.insert(0, Slow())
runpy.run_path(sys.argv[2], {}, "__main__")
"""


@pytest.mark.processes
@pytest.mark.parametrize("script", ["train", "clock", "report"])
@pytest.mark.parametrize("module", ["absl", "prfl_jax.config.cli"])
def test_ctrl_c_during_imports_is_quiet(script, module):
    call = [sys.executable, "-c", SLOW_IMPORT, module, f"scripts/{script}.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        call, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.read(1) == "."
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert said == "" and process.returncode == 130


def test_scripts_handle_ctrl_c_before_other_imports():
    for script in sorted((ROOT / "scripts").glob("*.py")):
        imports = [node for node in ast.parse(script.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        first = next(node for node in imports if getattr(node, "module", None) != "__future__")
        assert isinstance(first, ast.Import) and first.names[0].name == "prfl_jax.system.early", script.name


@pytest.mark.parametrize("foreign", ["thesis.tex", "config.json"])
def test_a_refused_folder_gets_nothing(tmp_path, foreign):
    (tmp_path / foreign).write_text("{}")
    with pytest.raises(UserError, match="--workdir|config.json"):
        Workdir(tmp_path, {}, "hash")
    assert [path.name for path in tmp_path.iterdir()] == [foreign]


def test_homes_are_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with Workdir("~/run", {}, "hash"):
        assert (tmp_path / "run" / "config.json").exists() and not (tmp_path / "~").exists()
    with pytest.raises(UserError, match="--workdir=~nobody_has_it/run: there is no user 'nobody_has_it'"):
        Workdir("~nobody_has_it/run", {}, "hash")


def test_a_workdir_that_is_not_utf8_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"w\\udcff: allowed is a folder whose whole path is UTF-8"):
        Workdir(os.fsdecode(os.fsencode(tmp_path) + b"/w\xff"), {}, "hash")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_model_in_a_folder_that_is_not_utf8(tmp_path):
    folder = os.fsencode(tmp_path) + b"/m\xff"
    os.mkdir(folder)
    source = "import flax.linen as nn\nclass M(nn.Module):\n  classes: int\n  @nn.compact\n"
    source += "  def __call__(self, x): return nn.Dense(self.classes)(x.reshape(x.shape[0], -1))\n"
    with open(folder + b"/net.py", "w") as file:
        file.write(source)
    ran = tiny.run("fedavg", model__name=os.fsdecode(folder) + "/net.py:M", rounds=2)
    assert ran.report["windows"] == 2

"""scripts/compile_check.py: its flags, and programs for an H100 where the compiler is installed."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from paths import ROOT

from prfl_jax.compile_check import plugins
from prfl_jax.compile_check.check import Request, run_check
from prfl_jax.compile_check.programs import Parts
from prfl_jax.compile_check.targets import TARGETS
from prfl_jax.config.cli import load_config
from prfl_jax.engine import chunk_program
from prfl_jax.engine.memory import state_bytes
from prfl_jax.system import accelerator
from prfl_jax.system.errors import UserError

COMPILERS = "PRFL_COMPILERS"  # names the folder; .ci/run fills it
SCRIPT = ROOT / "scripts" / "compile_check.py"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"target": None}, "--target=None: allowed is v5e, v6e, h100, h200"),
        ({"target": "a100"}, "--target=a100"),
        ({"target": "h100", "devices": 3}, "--devices=3: allowed for --target=h100 is 1, 2, 4, 8"),
        ({"target": "v5e", "devices": 8}, "--devices=8: allowed for --target=v5e is 1, 2, 4"),
        ({"target": "h100", "programs": ["chunks"]}, "--programs=chunks: allowed are initialisation, chunk"),
        ({"target": "h100", "devices": 8, "clients": 6}, "--devices=8: allowed is at most 6"),
        ({"target": "h100", "compilers": "a:b"}, "--compilers=a:b: allowed is a folder without ':' in its name"),
        ({"target": "h100", "compilers": "/dev/null/x"}, "--compilers=/dev/null/x: Not a directory; allowed is"),
        ({"target": "h100", "out": "nowhere/x.json"}, "--out=nowhere/x.json: allowed is a file in a folder"),
    ],
)
def test_flags_that_are_not_allowed(flags, words):
    with pytest.raises(UserError, match=words.replace("(", r"\(")):
        run_check(Request(**flags), load_config(ROOT / "configs/quickstart.py"), "quickstart.py")


def test_models_with_the_host_cannot_be_checked_on_a_gpu():
    config = load_config(ROOT / "configs/quickstart.py", [("engine.models", "host")])
    with pytest.raises(UserError, match="config.engine.models='host': allowed with --target=h100 is device"):
        run_check(Request("h100"), config, "quickstart.py")


def test_a_number_of_devices_that_a_target_does_not_have():
    config = load_config(ROOT / "configs/quickstart.py", [("engine.devices", "3")])
    with pytest.raises(UserError, match="config.engine.devices=3: allowed for --target=h100 is 1, 2, 4, 8"):
        run_check(Request("h100"), config, "quickstart.py")


def test_a_number_of_clients_that_the_config_does_not_allow():
    with pytest.raises(UserError, match="clients"):
        run_check(Request("h100", clients=0), load_config(ROOT / "configs/quickstart.py"), "quickstart.py")


@pytest.mark.parametrize("name", TARGETS)
def test_the_compiler_is_that_of_this_jax(name):
    """JAX's own metadata names it; without CUDA's libraries."""
    (wanted,) = plugins.wanted(TARGETS[name])
    assert wanted.startswith("jax-cuda" if TARGETS[name].backend == "gpu" else "libtpu") and "[" not in wanted


def check(tmp_path, *arguments):
    """(exit code, report, what was said) of the script for an H100; skipped where there is no compiler."""
    folder = os.environ.get(COMPILERS)
    if not folder or not plugins.installed(TARGETS["h100"], Path(folder)):
        pytest.skip(f"{COMPILERS} names no folder with the compiler: scripts/compile_check.py --target=h100 --install")
    out = tmp_path / "report.json"
    command = [sys.executable, str(SCRIPT), "--target=h100", f"--compilers={folder}", f"--out={out}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    return done.returncode, json.loads(out.read_text()) if out.exists() else None, done.stdout + done.stderr


def by_program(report):
    return {row["program"]: row for row in report["programs"]}


@pytest.mark.slow
def test_the_quickstart_compiles_for_an_h100(tmp_path):
    code, report, said = check(tmp_path, f"--config={ROOT / 'configs/quickstart.py'}")
    assert code == 0, said
    rows = by_program(report)
    assert set(rows) == {"initialisation", "chunk", "evaluation", "pruning"}
    chunk = rows["chunk"]
    assert chunk["peak"] <= 1.5e9  # Conv2 with ten clients
    assert chunk["moved"] > chunk["temporaries"] > 5 * 26.4e6 and chunk["operations"] > 50  # five clients at once
    assert "memory: " in report["memory_line"] and report["clients_axis"] == "vmap"
    assert f"| chunk | {chunk['compiling_s']} |" in said


@pytest.mark.slow
def test_a_program_or_a_compiler_that_is_not_there(tmp_path):
    config = f"--config={ROOT / 'configs/quickstart.py'}"
    code, _, said = check(tmp_path, config, "--config.strategy=fedbuff", "--programs=pruning")
    allowed = "allowed with this config are initialisation, chunk, evaluation"
    assert code == 2 and f"--programs=pruning: {allowed}" in said and "Traceback" not in said
    command = [sys.executable, "-E", str(SCRIPT), "--target=h100", config, f"--compilers={os.environ[COMPILERS]}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "--compilers: JAX does not take the compiler" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_deterministic_operations_cost_no_more(tmp_path):
    config = f"--config={ROOT / 'configs/quickstart.py'}"
    _, plain, _ = check(tmp_path, config, "--programs=chunk")
    _, fixed, _ = check(tmp_path, config, "--programs=chunk", "--config.engine.deterministic")
    plain, fixed = by_program(plain)["chunk"], by_program(fixed)["chunk"]
    assert fixed["moved"] <= 1.1 * plain["moved"] and fixed["peak"] <= 1.1 * plain["peak"]


@pytest.mark.slow
def test_what_does_not_fit_is_one_line(tmp_path):
    code, report, said = check(
        tmp_path, f"--config={ROOT / 'configs/quickstart.py'}", "--programs=chunk", "--config.model.width=12"
    )
    assert code == 1 and not by_program(report)["chunk"]["fits"] and report["memory_line"] is None
    assert "cuda" not in said.lower()  # of a driver that is not there
    assert "h100: chunk needs" in said and "which has 84.94 GB" in said
    assert "config.clients.number=10: each device would need" in report["refused"]


@pytest.mark.slow
def test_vgg11_compiles_for_an_h100(tmp_path):
    rng = np.random.default_rng(0)
    data = tmp_path / "images.npz"
    images = {"x_train": (400, 32, 32, 3), "x_test": (100, 32, 32, 3)}
    arrays = {name: rng.integers(0, 256, shape, np.uint8) for name, shape in images.items()}
    labels = {name.replace("x", "y"): rng.integers(0, 10, shape[0]) for name, shape in images.items()}
    np.savez(data, **arrays, **labels)
    given = f"--config={ROOT / 'configs/cifar10.py'}", f"--config.data.name={data}", "--config.data.partition=iid"
    code, report, said = check(tmp_path, *given, "--programs=chunk")
    assert code == 0, said
    assert by_program(report)["chunk"]["peak"] < 3e9


@pytest.fixture
def this_cpu(monkeypatch):
    """An H100 whose compiler is this CPU's, of 1 GB; returns a function that changes that."""

    def use(memory):
        monkeypatch.setitem(TARGETS, "h100", dataclasses.replace(TARGETS["h100"], backend="cpu", memory=memory))

    monkeypatch.setattr(plugins, "install", lambda machine, under: under)
    monkeypatch.setattr(plugins, "start_again", lambda machine, folder, deterministic: None)
    monkeypatch.setattr(plugins, "devices", lambda machine, count: accelerator.devices()[:count])
    use(10**9)
    return use


def test_the_report(this_cpu, tmp_path, capsys):
    out, config = tmp_path / "report.json", tiny.config("prfl")
    assert run_check(Request("h100", out=str(out), compilers=str(tmp_path / "there")), config, "tiny.py") == 0
    report, said = json.loads(out.read_text()), capsys.readouterr().out
    rows = by_program(report)
    assert list(rows) == ["initialisation", "chunk", "evaluation", "pruning"]
    for row in rows.values():
        assert row["error"] is None and row["fits"] and row["operations"] > 0 and row["moved"] > 0
        assert row["peak"] == row["arguments"] + row["outputs"] - row["aliased"] + row["temporaries"] + row["code"]
        assert f"| {row['program']} | {row['compiling_s']} |" in said
    state = sum(state_bytes(chunk_program.state_shapes(Parts.of(config).engine)).values())
    assert rows["chunk"]["arguments"] == pytest.approx(state + 360 * 784, rel=0.1)  # samples, and plans
    assert report["devices"] == 1 and report["clients"] == 4 and report["memory_line"] in said


def test_what_does_not_fit_or_compile_is_said(this_cpu, monkeypatch, tmp_path, capsys):
    this_cpu(10**5)
    given = {"programs": ["chunk"], "clients": 4, "compilers": str(tmp_path / "there")}
    assert run_check(Request("h100", **given), tiny.config("prfl"), "tiny.py") == 1
    assert "h100: chunk needs" in capsys.readouterr().out

    class Lowered:
        def compile(self):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: too large\nand more")

    monkeypatch.setattr(Parts, "programs", lambda self: iter([("chunk", Lowered)]))
    this_cpu(10**9)
    assert run_check(Request("h100", **given), tiny.config("prfl"), "tiny.py") == 1
    assert "h100: chunk does not compile: RESOURCE_EXHAUSTED: too large\n" in capsys.readouterr().out


def test_only_the_compiler(this_cpu, tmp_path, capsys):
    assert run_check(Request("h100", install=True, compilers=str(tmp_path)), tiny.config(), "tiny.py") == 0
    assert capsys.readouterr().out == f"{tmp_path}\n"


def test_a_compiler_is_installed_once(monkeypatch, tmp_path):
    """Both parts of JAX's plugin, without what they require besides; pip's error is one line."""
    asked = []

    def pip(command, **_):
        asked.append(command)
        code = len(asked) == 1
        return subprocess.CompletedProcess(
            command, int(code), "", "WARNING: x\nERROR: no such version\n" if code else ""
        )

    monkeypatch.setattr(plugins.subprocess, "run", pip)
    machine = TARGETS["h100"]
    with pytest.raises(UserError, match="cannot be installed in .*: ERROR: no such version"):
        plugins.install(machine, tmp_path)
    folder = plugins.folder_of(machine, tmp_path)
    folder.mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(plugins.shutil, "rmtree", lambda *_, **__: None)  # pip makes the folder
        assert plugins.install(machine, tmp_path) == folder and plugins.install(machine, tmp_path) == folder
    assert len(asked) == 2 and "--no-deps" in asked[1]
    assert [part.partition("<")[0] for part in asked[1][-2:]] == ["jax-cuda12-plugin", "jax-cuda12-pjrt"]

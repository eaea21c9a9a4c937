"""Compiled programs are kept between processes, where the user did not say otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

from prfl_jax import startup

SCRIPT = """
from prfl_jax.startup import keep_compiled
folder = keep_compiled()
import jax, jax.numpy as jnp
seen = []
jax.monitoring.register_event_listener(lambda event, **_: seen.append(event))
def f(x):
    for _ in range(40):
        x = jnp.sort(jnp.tanh(x @ x), axis=0)
    return x
jax.block_until_ready(jax.jit(f)(jnp.ones((64, 64))))
print(folder, seen.count("/jax/compilation_cache/cache_hits"))
"""


def process(cache: Path) -> list[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    environment |= {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # the program below compiles fast
    call = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.split()


@pytest.mark.processes
def test_the_second_process_compiles_nothing_anew(tmp_path):
    folder, hits = process(tmp_path)
    assert folder.startswith(f"{tmp_path}/prfl_jax/compiled/") and hits == "0"
    kept = {p.name for p in Path(folder).iterdir() if "-cache" in p.name}
    assert kept
    again, hits = process(tmp_path)
    assert again == folder and int(hits) >= 1
    assert {p.name for p in Path(folder).iterdir() if "-cache" in p.name} == kept


def test_the_users_own_setting_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for setting in ("", str(tmp_path / "own")):
        monkeypatch.setenv(startup.FOLDER, setting)
        assert startup.keep_compiled() is None and os.environ[startup.FOLDER] == setting
    assert not list(tmp_path.iterdir())


def test_without_a_folder_it_goes_on_without(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    monkeypatch.delenv(startup.FOLDER, raising=False)
    assert startup.keep_compiled() is None and startup.FOLDER not in os.environ


def test_another_processor_or_jaxlib_has_another_folder(monkeypatch):
    here = startup._machine()
    assert here == startup._machine()
    monkeypatch.setattr(startup.importlib.metadata, "version", lambda name: "0.0.1")
    assert startup._machine() != here


@pytest.mark.parametrize("flags,expected", [("", "{d}=3"), ("--xla_a=1", "--xla_a=1 {d}=3"), ("{d}=1", "{d}=1")])
def test_each_core_is_a_device_unless_the_user_says_how_many(monkeypatch, flags, expected):
    d = startup.HOST_DEVICES
    monkeypatch.setenv("XLA_FLAGS", flags.format(d=d))
    monkeypatch.setattr(startup.provenance, "cores", lambda: 3)
    startup.a_device_per_core()
    assert os.environ["XLA_FLAGS"] == expected.format(d=d)


def test_the_processes_of_one_run_keep_one_device_each(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv(startup.FOLDER, "")
    startup.before_jax(processes=2)
    assert os.environ["XLA_FLAGS"] == ""
    startup.before_jax()
    assert startup.HOST_DEVICES in os.environ["XLA_FLAGS"]


def damaged(folder: Path, how: str) -> None:
    """Leaves a program as a killed process, or a power failure, may."""
    program = next(path for path in folder.iterdir() if path.name.endswith("-cache"))
    used = program.with_name(program.name.removesuffix("-cache") + "-atime")
    if how == "no time":
        used.unlink()
    elif how == "no program":
        program.unlink()
    elif how == "empty":
        program.write_bytes(b"")
    elif how == "cut":
        program.write_bytes(program.read_bytes()[: program.stat().st_size // 2])
    elif how == "changed":
        content = bytearray(program.read_bytes())
        content[len(content) // 2] ^= 0xFF
        program.write_bytes(content)


@pytest.mark.processes
@pytest.mark.parametrize("how", ["no time", "no program", "empty", "cut", "changed"])
def test_what_a_kill_left_is_dropped_and_made_again(tmp_path, how):
    process(tmp_path)
    folder, hits = process(tmp_path)
    folder = Path(folder)
    damaged(folder, how)
    assert int(process(tmp_path)[1]) == int(hits) - 1  # one is compiled anew, and kept
    names = {path.name for path in folder.iterdir()}
    assert {n.removesuffix("-cache") for n in names if n.endswith("-cache")} == {
        n.removesuffix("-atime") for n in names if n.endswith("-atime")
    }
    assert process(tmp_path)[1] == hits


def test_a_folder_that_cannot_be_used_is_told_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(startup.FOLDER, raising=False)
    (tmp_path / "prfl_jax" / "compiled" / startup._machine() / ".lockfile").mkdir(parents=True)
    assert startup.keep_compiled() is None and startup.FOLDER not in os.environ
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "compiled programs cannot be kept there" in said and "remove it" in said

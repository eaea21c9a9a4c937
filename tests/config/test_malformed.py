"""Malformed configs through scripts/train.py: one line each that says what to change, and nothing is touched."""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags
from malformed_configs import SEED, Case, cases
from marked import slow_except
from paths import ROOT

from prfl_jax.config import cli

CASES = cases()
MOST_LETTERS = 1500  # of a line: the longest names every key of a group


def test_there_are_enough_and_no_two_are_the_same():
    assert len({(case.file, case.overrides) for case in CASES}) == len(CASES) >= 200


@pytest.fixture(scope="module")
def main():
    """What scripts/train.py runs; its flags are taken away again."""
    before = set(flags.FLAGS)
    spec = importlib.util.spec_from_file_location("train_script", ROOT / "scripts" / "train.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    yield script.main
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


def command(case: Case, folder: Path) -> list[str]:
    """The arguments of scripts/train.py."""
    config = ROOT / "configs" / "quickstart.py"
    if case.file is not None:
        config = folder / "mine.py"
        if isinstance(case.file, bytes):
            config.write_bytes(case.file)
        else:
            config.write_text(case.file, encoding="utf-8")
    data = f"--config.data.dir={folder / 'data'}"
    return [f"--config={config}", f"--workdir={folder / 'run'}", data, *case.overrides]


def refused(case: Case, code: int, out: str, err: str, folder: Path) -> None:
    """Asserts one line with its words, and that there is nothing new."""
    assert code == 2 and out == "", err
    assert err.startswith("train.py: ") and err.endswith("\n") and len(err.splitlines()) == 1, err
    assert "Traceback" not in err and len(err) < MOST_LETTERS
    assert all(word in err for word in case.says), (case.says, err)
    assert {path.name for path in folder.iterdir()} <= {"mine.py"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: ascii(case.name))
def test_one_line_says_what_to_change(case, main, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        cli.run_with_config(main, ["scripts/train.py", *command(case, tmp_path)])
    refused(case, left.value.code, *capsys.readouterr(), tmp_path)


SAMPLE = random.Random(SEED).sample(CASES, 6)


@pytest.mark.parametrize("case", slow_except(SAMPLE, SAMPLE[0]), ids=lambda case: ascii(case.name))
def test_a_process_says_the_same(case, tmp_path):
    call = [sys.executable, str(ROOT / "scripts" / "train.py"), *command(case, tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=100)
    refused(case, done.returncode, done.stdout, done.stderr, tmp_path)


def test_the_folder_of_a_run_is_left_as_it_is(main, tmp_path, capsys):
    """One that ended, and whose command is given again with a slip."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.json", "metrics.jsonl", "report.json"):
        (folder / name).write_text(name)
    before = {path: (path.read_text(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    for case in CASES[:20]:
        with pytest.raises(SystemExit):
            cli.run_with_config(main, ["scripts/train.py", *command(case, tmp_path)])
    assert {path: (path.read_text(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before

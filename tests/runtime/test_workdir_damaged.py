"""Damaged workdirs: a run goes on to the same report to the bit, or one line names the file and nothing is changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from marked import slow_except

import prfl_jax
from prfl_jax.config import cli
from prfl_jax.report import comparable, metrics_line, read_metrics
from prfl_jax.system.errors import UserError
from prfl_jax.system.signals import Interrupted


@pytest.fixture(scope="module")
def stopped(experiment, tmp_path_factory):
    """A run that was stopped twice: two checkpoints, and records after the last one."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    for checks in (9, 5):
        with pytest.raises(Interrupted):
            experiment.run(folder, guard=tiny.StopAt(checks), progress=False)
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(metrics_line({"kind": "window", "window": 99}) + "\n")
    assert [path.name for path in steps(folder)] == ["1", "2"]
    return folder


def steps(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))


def tree(folder: Path) -> dict[str, object]:
    """All that is there, in bytes."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found[name] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


def records(folder: Path) -> list[dict]:
    return [{k: v for k, v in record.items() if k != "host_s"} for record in read_metrics(folder / "metrics.jsonl")]


def again(experiment, folder: Path) -> int:
    """The run's exit code, as a script would leave."""

    def main() -> int:
        experiment.run(folder, progress=False)
        return 0

    with pytest.raises(SystemExit) as left:
        cli.run(main, ["scripts/train.py"])
    return left.value.code


def goes_on(experiment, whole, folder: Path, capsys) -> str:
    """Asserts that it does, to the same end; what it said."""
    assert again(experiment, folder) == 0
    report = json.loads((folder / "report.json").read_text())
    assert comparable(report) == comparable(whole.report)
    assert records(folder) == records(whole.workdir)
    tiny.same(prfl_jax.load_model(folder / "final_model.npz"), whole.params)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def is_refused(experiment, folder: Path, capsys, *words: str) -> None:
    """Asserts one line with these words, and that everything is as before (a lock and an empty file may be new)."""
    before = tree(folder.parent)
    assert again(experiment, folder) == 2
    said = capsys.readouterr().err
    assert said.startswith("train.py: ") and len(said.splitlines()) == 1, said
    assert all(word in said for word in words), said
    after = tree(folder.parent)
    assert {name: after.get(name) for name in before} == before
    assert all(content in (b"", None) for name, content in after.items() if name not in before)


# --- what a run goes on from ---


def text(path: Path, content: str = "") -> None:
    path.write_text(content)


def shorten(path: Path, by: int) -> None:
    os.truncate(path, path.stat().st_size - by)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 40)


def folder_instead(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    (path / "something").mkdir(parents=True)


def file_instead(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("not a folder")


def loop_instead(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def wrong_json(path: Path) -> None:
    """Values that JSON can read, and nobody wrote."""
    values = json.loads(path.read_text())
    values["at"]["window"] += 1
    path.write_text(json.dumps(values))


def line(path: Path, content: bytes) -> None:
    """The second line replaced."""
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = content
    path.write_bytes(b"".join(lines))


def digit(path: Path) -> None:
    """One digit of an early record another one: still JSON, and as long."""
    content = path.read_bytes()
    at = content.index(b'"end_s":') + 8
    path.write_bytes(content[:at] + (b"1" if content[at : at + 1] != b"1" else b"2") + content[at + 1 :])


def after_the_first_checkpoint(path: Path) -> None:
    """As long as the first checkpoint wants it, and half a line more."""
    host = next((path.parent / "checkpoints" / "1" / "host").rglob("metadata"))
    os.truncate(path, json.loads(host.read_text())["metrics_bytes"] + 7)


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


HARMLESS: dict[str, Callable[[Path], object]] = {
    "a record cut in the middle": lambda run: shorten(run / "metrics.jsonl", 9),
    "noise after the records": lambda run: (run / "metrics.jsonl").open("ab").write(bytes(range(256))),
    "records cut in a line before the last checkpoint": lambda run: after_the_first_checkpoint(run / "metrics.jsonl"),
    "garbage as report": lambda run: noise(run / "report.json"),
    "an empty report": lambda run: text(run / "report.json"),
    "a report that is a loop": lambda run: loop_instead(run / "report.json"),
    "garbage as figure and model": lambda run: [noise(run / name) for name in ("figure.png", "final_model.npz")],
    "all checkpoints gone": lambda run: remove(run / "checkpoints"),
    "all checkpoints and records gone": lambda run: [remove(run / name) for name in ("checkpoints", "metrics.jsonl")],
    "the last checkpoint gone": lambda run: remove(steps(run)[-1]),
    "the last checkpoint a file": lambda run: file_instead(steps(run)[-1]),
    "the last checkpoint a loop": lambda run: loop_instead(steps(run)[-1]),
    "the last checkpoint an empty folder": lambda run: [remove(steps(run)[-1]), (run / "checkpoints/2").mkdir()],
    "values that nobody wrote": lambda run: wrong_json(next((steps(run)[-1] / "host").rglob("metadata"))),
    "host values that are a list": lambda run: text(next((steps(run)[-1] / "host").rglob("metadata")), "[1, 2]"),
    "a checkpoint that was being written": lambda run: shutil.copytree(
        steps(run)[-1] / "state", run / "checkpoints" / "3.orbax-checkpoint-tmp"
    ),
    "other things among the checkpoints": lambda run: [
        text(run / "checkpoints" / "notes.txt"), (run / "checkpoints" / "07x").mkdir(), text(run / "checkpoints" / "9")
    ],
    "a part of a file that was being written": lambda run: text(run / ".report.json.123.part", "{"),
    "a lock that somebody wrote into": lambda run: text(run / ".lock", "mine"),
}  # fmt: skip


# Damage to records, results, all checkpoints, the last one, its values; a file that was being written; the lock.
FAST = (
    "a record cut in the middle", "records cut in a line before the last checkpoint", "garbage as report",
    "all checkpoints gone", "the last checkpoint gone", "values that nobody wrote",
    "a checkpoint that was being written", "a lock that somebody wrote into",
)  # fmt: skip


@pytest.mark.parametrize("damage", slow_except(HARMLESS, *FAST))
def test_a_damaged_folder_that_a_run_goes_on_in(damage, experiment, whole, stopped, tmp_path, capsys):
    shutil.copytree(stopped, tmp_path / "run", symlinks=True)
    HARMLESS[damage](tmp_path / "run")
    goes_on(experiment, whole, tmp_path / "run", capsys)


@pytest.mark.slow
@pytest.mark.parametrize("ways", [[remove], [cut, noise, text, folder_instead]], ids=["removed", "damaged"])
def test_every_file_of_the_last_checkpoint_in_turn(ways, experiment, whole, stopped, tmp_path, capsys):
    """It is used as it is, or the one before."""
    names = [path.relative_to(stopped) for path in steps(stopped)[-1].rglob("*") if path.is_file()]
    assert len(names) > 8
    for number, name in enumerate(sorted(names)):
        folder = tmp_path / str(number)
        shutil.copytree(stopped, folder)
        ways[number % len(ways)](folder / name)
        said = goes_on(experiment, whole, folder, capsys)
        set_aside = list(folder.glob("damaged_checkpoint_2_*"))
        assert len(set_aside) == said.count("checkpoint 2 is damaged") <= 1
        shutil.rmtree(folder)


# --- what is refused ---

REFUSED: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "no config": (lambda run: remove(run / "config.json"), ("holds", "no config.json; use an empty folder")),
    "a cut config": (lambda run: cut(run / "config.json"), ("config.json: cannot be read", "use a new --workdir")),
    "an empty config": (lambda run: text(run / "config.json"), ("config.json: cannot be read", "use a new --workdir")),
    "noise as config": (lambda run: noise(run / "config.json"), ("config.json: cannot be read",)),
    "a list as config": (lambda run: text(run / "config.json", "[1]"), ("config.json: cannot be read",)),
    "a folder as config": (lambda run: folder_instead(run / "config.json"), ("config.json: cannot be read",)),
    "a loop as config": (lambda run: loop_instead(run / "config.json"), ("config.json",)),
    "another run's config": (
        lambda run: text(run / "config.json", '{"config_hash": "x", "config": {"seed": 5}}'),
        ("holds a run of another config", "use a new folder"),
    ),
    "a config of nothing": (
        lambda run: text(run / "config.json", '{"config_hash": 1, "config": 2}'), ("another config",),
    ),
    "no records": (lambda run: remove(run / "metrics.jsonl"), ("metrics.jsonl: has 0 bytes", "use a new --workdir")),
    "records cut before all checkpoints": (
        lambda run: os.truncate(run / "metrics.jsonl", 30), ("metrics.jsonl: has 30 bytes", "use a new --workdir"),
    ),
    "noise instead of a record": (
        lambda run: line(run / "metrics.jsonl", b"\x00\xff" * 400 + b"\n"), ("metrics.jsonl: its first", "use a new"),
    ),
    "another digit in a record": (lambda run: digit(run / "metrics.jsonl"), ("metrics.jsonl: its first",)),
    "a folder as records": (lambda run: folder_instead(run / "metrics.jsonl"), ("metrics.jsonl: cannot", "move away")),
    "a loop as records": (lambda run: loop_instead(run / "metrics.jsonl"), ("metrics.jsonl: cannot", "move away")),
    "all checkpoints damaged": (
        lambda run: [noise(next((step / "host").rglob("metadata"))) for step in steps(run)],
        ("checkpoints: none of 2 checkpoints can be read", "nothing was changed"),
    ),
    "a file as checkpoints": (lambda run: file_instead(run / "checkpoints"), ("checkpoints: cannot", "move away")),
    "a loop as checkpoints": (lambda run: loop_instead(run / "checkpoints"), ("checkpoints: cannot", "move away")),
    "a folder as lock": (lambda run: folder_instead(run / ".lock"), ("--workdir=", "allowed: a folder")),
    "a file as workdir": (lambda run: file_instead(run), ("--workdir=", "allowed: a folder")),
    "a loop as workdir": (lambda run: loop_instead(run), ("--workdir=", "allowed: a folder")),
}  # fmt: skip


@pytest.mark.parametrize("damage", REFUSED)
def test_a_damaged_folder_that_is_refused(damage, experiment, stopped, tmp_path, capsys):
    shutil.copytree(stopped, tmp_path / "run")
    function, words = REFUSED[damage]
    function(tmp_path / "run")
    is_refused(experiment, tmp_path / "run", capsys, *words)


@pytest.mark.parametrize("name", slow_except(["report.json", "figure.png", "final_model.npz"], "report.json"))
def test_a_folder_where_a_result_belongs(name, experiment, whole, stopped, tmp_path, capsys):
    """Found in the end; the same command finishes the run once it is moved away."""
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    (folder / name).mkdir()
    assert again(experiment, folder) == 2
    said = capsys.readouterr().err
    assert f"{name}: cannot be written" in said and "move away" in said and "Traceback" not in said
    (folder / name).rmdir()
    goes_on(experiment, whole, folder, capsys)


@pytest.mark.parametrize("place", ["run", "run/checkpoints", "run/metrics.jsonl"])
def test_what_may_not_be_written(place, experiment, whole, stopped, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    (tmp_path / place).chmod(0o555 if (tmp_path / place).is_dir() else 0o444)
    if os.access(tmp_path / place, os.W_OK):
        pytest.skip("this user may write everywhere")
    assert again(experiment, folder) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "Permission denied" in said
    (tmp_path / place).chmod(0o755)
    goes_on(experiment, whole, folder, capsys)


@pytest.mark.parametrize("name", ["a" * 300, "x\0y", "file/inside"])
def test_places_that_cannot_be(name, experiment, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--workdir=.*allowed: a folder that can be written to"):
        experiment.run(tmp_path / name, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

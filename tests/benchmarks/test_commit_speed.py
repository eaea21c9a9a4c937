"""The comparison of the speed of two commits."""

import json
import subprocess

import pytest
from paths import ROOT

from prfl_jax.benchmarks import commit_speed

IS_CLONE = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True).returncode == 0


def test_speed_is_old_over_new_time_of_the_same_turn():
    row = commit_speed._row("dispatch", {"old": [1.0, 3.0, 2.0], "new": [2.0, 2.0, 2.0]})
    assert (row["speed"], row["speed_min"], row["speed_max"]) == (1.0, 0.5, 1.5)
    assert "old   2000.00 ms   new   2000.00 ms   speed 1.000 (0.500 to 1.500)" in commit_speed.line(row)


@pytest.mark.processes
@pytest.mark.skipif(not IS_CLONE, reason="these files are no git repository")
def test_two_commits_take_turns_in_every_row(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commit_speed, "ROUNDS", 1)
    monkeypatch.setattr(commit_speed, "KERNEL_TURNS", 1)
    assert commit_speed.compare_speed("HEAD", "HEAD", tmp_path, small=True) == 0
    (file,) = tmp_path.glob("*/speed.json")
    report = json.loads(file.read_text())
    names = [row["name"] for row in report["rows"]]
    assert names[:2] == ["W1 round", "W1 evaluate"] and {"levels", "dispatch", "evaluation"} <= set(names)
    assert all(len(row["old_s"]) == len(row["new_s"]) == 1 and row["speed"] > 0 for row in report["rows"])
    assert report["old"] == report["new"] and report["hardware"]["cpu"]
    assert str(file) in capsys.readouterr().out

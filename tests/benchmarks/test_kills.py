"""A run that is killed with SIGKILL three times, at random moments, ends as one that was left alone."""

from __future__ import annotations

import random
import signal

import pytest
from paths import HELPERS

from prfl_jax.benchmarks.kills import Request, alone, outcome, run_kills, state, torn_run
from prfl_jax.system.errors import UserError

SMALLER = {"model.name": "tiny:TwoLayers", "model.width": 1.0, "model.classes": None, "rounds": 30}


@pytest.mark.processes
def test_three_kills(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HELPERS))  # where the processes find the model
    whole_s = alone(tmp_path / "whole", **SMALLER)
    run = torn_run(tmp_path / "torn", signal.SIGKILL, 3, whole_s / 2, random.Random(1), **SMALLER)
    assert not run["problems"] and run["kills"]
    found, wanted = outcome(tmp_path / "torn"), outcome(tmp_path / "whole")
    assert all(found[part] == wanted[part] for part in ("report", "records", "model"))
    assert state(tmp_path / "torn") == "writing results"


def test_where_a_run_stands(tmp_path):
    assert state(tmp_path) == "starting"
    (tmp_path / "metrics.jsonl").write_text("")
    assert state(tmp_path) == "before the first checkpoint"
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    assert state(tmp_path) == "after a checkpoint"
    (tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp").mkdir()
    assert state(tmp_path) == "writing a checkpoint"


def test_an_output_is_wanted():
    with pytest.raises(UserError, match="--out is missing"):
        run_kills(Request(None))

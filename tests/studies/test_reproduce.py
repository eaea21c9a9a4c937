"""The script that makes the tables and figures of a paper."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from marked import every_fifth
from paths import ROOT

from prfl_jax.studies.prfl import make, paper, tables
from prfl_jax.studies.prfl.study import STUDY
from prfl_jax.studies.study import STUDIES, find_study
from prfl_jax.system.errors import UserError


def script(*arguments):
    call = [sys.executable, "scripts/reproduce.py", *arguments]
    return subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=200)


@pytest.mark.slow
def test_table3_by_the_script(tmp_path):
    done = script("--what=table3", f"--out={tmp_path}", "--preset=smoke")
    assert done.returncode == 0, done.stderr
    assert "mean abs. ln ratio" in done.stdout and (tmp_path / "table3.csv").exists()
    counted, dt_s = make.clocks(10_000, 1)
    assert dt_s == 19.25
    assert tables.log_ratio_row1(counted["fedasyn"][0]["updates"]) <= 0.03
    assert min(counted["prfl_norecover"][0]["updates"]) >= 9_900
    assert math.isclose(tables.log_ratio_row1(paper.TABLE3["fedasyn"]), 0.0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    every_fifth(
        [
            (["--what=table9"], "--what=table9"),
            (["--preset=huge"], "--preset=huge"),
            (["--paper=fedavg"], "allowed is one of prfl"),
            (["--seeds=0"], "--seeds=0"),
            (["--budget_s=-3"], "--budget_s"),
            (["--only=prfl,fedsgd"], "--only=fedsgd"),
            (["--settings=mars", "--out=/tmp/nowhere"], "--settings=mars"),
            (["--change=local.lr=fast", "--out=/tmp/nowhere"], "local.lr"),
            (["--change=strategy=fedavg", "--out=/tmp/nowhere"], "--change=strategy"),
            (["--change=local.lr=1"], "--out=DIR"),
            (["--preset=smoke", "--out=results/mine"], "outside results/"),
            (["--preset=smoke", "--out=/proc/nowhere"], "--out"),
            (["--preset=smoke", "--out="], "--out is empty"),
        ]
    ),
)
def test_mistakes_are_one_line(arguments, words):
    done = script(*arguments)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_an_unknown_preset_is_refused():
    with pytest.raises(UserError, match="full, cpu, smoke"):
        STUDY.preset("paper")


def test_the_scripts_help_names_what_can_be_made():
    text = (ROOT / "scripts/reproduce.py").read_text()
    for name in STUDIES:
        assert f"--paper={name}: {', '.join(find_study(name).products)}\n" in text

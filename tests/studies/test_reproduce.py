"""The script that makes the tables and figures of a paper."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
from marked import every_fifth
from paths import ROOT

from prfl_jax.studies.edge_pruning.kept_masks import kept_masks, masks_file
from prfl_jax.studies.prfl import make, paper, tables
from prfl_jax.studies.prfl.study import STUDY
from prfl_jax.studies.study import STUDIES, find_study
from prfl_jax.submodel.layers import layer_table
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
            (["--paper=fedavg"], "allowed is one of prfl, fedmp, edge_pruning"),
            (["--seeds=0"], "--seeds=0"),
            (["--paper=fedmp", "--what=table5"], "allowed with --paper=fedmp"),
            (["--paper=fedmp", "--only=prfl"], "--only=prfl: allowed are fedavg"),
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


def ratios_of_all_rounds(runs, file):
    report = json.loads((runs / file).read_text())
    assert all(sum(entry["ratios"]["tenths"]) == report["windows"] - 1 for entry in report["clients"])


def masks_beside_the_report(runs, file):
    report = json.loads((runs / file).read_text())
    masks = kept_masks(masks_file(runs / file))
    sizes = [math.prod(layer.kernel) for layer in layer_table("conv2", (28, 28, 1), 62, 0.1)]
    held = sum(size * share[0] for size, share in zip(sizes, masks.shares.values(), strict=True))
    fixed = report["model"]["parameters"] - sum(sizes)
    assert (held + fixed) / report["model"]["parameters"] == pytest.approx(report["masks"]["retention"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "what", "runs", "check"),
    [
        ("fedmp", "fig4", ["cnn/fedmp", "cnn_theta_0.25/fedmp"], ratios_of_all_rounds),
        ("edge_pruning", "fig5", ["digits/layerwise", "digits_sampled/layerwise"], masks_beside_the_report),
    ],
)
def test_a_paper_by_the_script(tmp_path, name, what, runs, check):
    """Two runs and their figure; then one report is deleted, and that run alone is made again."""
    call = (
        f"--paper={name}",
        f"--what={what}",
        "--preset=smoke",
        f"--out={tmp_path / 'out'}",
        f"--work={tmp_path / 'work'}",
    )
    done = script(*call)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\nrun ") == 2
    folder = tmp_path / "out/runs"
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.json"))
    assert files == [f"{run}_seed0.json" for run in runs]
    assert "SMOKE TEST" in (tmp_path / f"out/{what}.md").read_text()
    check(folder, files[0])
    before = [(folder / file).stat().st_mtime_ns for file in files]
    (folder / files[1]).unlink()
    again = script(*call)
    assert again.returncode == 0 and again.stderr.count("\nrun ") == 1, again.stderr
    after = [(folder / file).stat().st_mtime_ns for file in files]
    assert before[0] == after[0] and before[1] < after[1]

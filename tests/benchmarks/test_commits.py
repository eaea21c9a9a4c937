"""The comparison of two commits: what counts as a difference, and which runs are made."""

import json
import shutil

import numpy as np
import pytest

from prfl_jax import strategies
from prfl_jax.benchmarks import commits
from prfl_jax.system.errors import UserError


@pytest.fixture
def runs(whole, tmp_path):
    """Two folders of the same run."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        for file in ("report.json", "metrics.jsonl", "final_model.npz"):
            shutil.copy(whole.workdir / file, tmp_path / name / file)
    return tmp_path / "old", tmp_path / "new"


def _edit_report(folder, **changes):
    report = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps({**report, **changes}))


def test_equal_runs_have_no_differences(runs):
    assert list(commits.differences(*runs)) == []


def test_what_speaks_of_the_host_is_not_compared(runs):
    _edit_report(runs[1], commit="another", peak_memory_mb=1.0)
    lines = (runs[1] / "metrics.jsonl").read_text().splitlines()
    lines = [json.dumps({**json.loads(line), "host_s": 1e9}) if '"host_s"' in line else line for line in lines]
    (runs[1] / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert list(commits.differences(*runs)) == []


def test_a_changed_and_an_absent_key_of_the_report_are_named(runs):
    _edit_report(runs[1], windows=13, more=1)
    found = list(commits.differences(*runs))
    assert found == ["report.more: (absent) / 1", "report.windows: 12 / 13"]
    assert list(commits.differences(*runs, ignore=("report.windows", "report.more"))) == []


def test_one_bit_of_a_record_is_found(runs):
    lines = (runs[1] / "metrics.jsonl").read_text().splitlines()
    number = next(i for i, line in enumerate(lines) if json.loads(line)["kind"] == "window")
    record = json.loads(lines[number])
    record["end_s"] = float(np.nextafter(record["end_s"], np.inf))
    lines[number] = json.dumps(record)
    (runs[1] / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert list(commits.differences(*runs)) == [f"record {number + 1} (window): record.end_s"]
    assert list(commits.differences(*runs, ignore=("record.end_s",))) == []


def test_a_missing_record_is_found(runs):
    lines = (runs[1] / "metrics.jsonl").read_text().splitlines()
    (runs[1] / "metrics.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    assert list(commits.differences(*runs)) == [f"{len(lines)} / {len(lines) - 1} records"]


def test_one_bit_of_a_weight_is_found(runs):
    with np.load(runs[1] / "final_model.npz") as file:
        arrays = {key: file[key] for key in file.files}
    key = next(iter(arrays))
    arrays[key].reshape(-1).view(np.uint32)[0] ^= 1
    np.savez(runs[1] / "final_model.npz", **arrays)
    assert list(commits.differences(*runs)) == [f"final_model.npz: {key}"]


def test_every_strategy_runs_with_faults_and_without():
    made = commits.cases(list(strategies.ROWS), 40)
    assert len(made) == 2 * len(strategies.ROWS) + 1
    assert made["quickstart"] == {"rounds": 40, "compare": []}
    assert {run["strategy"] for name, run in made.items() if name.endswith("_faults")} == set(strategies.ROWS)
    assert all(run["faults.crash"] > 0 for name, run in made.items() if name.endswith("_faults"))


def test_what_is_no_commit_is_refused(tmp_path):
    with pytest.raises(UserError, match="'nothing' is no commit of this clone"):
        commits.checkout("nothing", tmp_path)

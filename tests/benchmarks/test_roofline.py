"""The suite `roofline` at its small size: floors, ratios, the file."""

import json

import pytest
from kernel_names import KERNELS

from prfl_jax.benchmarks.roofline import Limits, Machine, RooflineSuite
from prfl_jax.benchmarks.suite import Request, add_to_history, run_suite
from prfl_jax.benchmarks.timing import Row


def test_a_history_keeps_medians(tmp_path):
    hardware = {"commit": "abc", "cpu": "a", "threads": 2, "load_average_before": [0.1, 0, 0], "versions": {"jax": "1"}}
    rows = [{"kernel": "levels", "median": 0.5, "ratio": None, "runs": [0.5], "note": "long", "judged": True}]
    for day in ("2026-01-01", "2026-01-02"):
        add_to_history(tmp_path / "h.jsonl", {"date": day, "hardware": hardware, "rows": rows})
    lines = [json.loads(line) for line in (tmp_path / "h.jsonl").read_text().splitlines()]
    assert [line["date"] for line in lines] == ["2026-01-01", "2026-01-02"]
    assert lines[0]["rows"] == [{"kernel": "levels", "median": 0.5}] and lines[0]["commit"] == "abc"


def test_the_floor_is_the_larger_of_both():
    machine = Machine(flop_s=1e9, bytes_s=1e8)
    assert machine.floor_s(2e9, 1e8) == 2.0 and machine.floor_s(1e9, 3e8) == 3.0


def test_a_floor_is_of_the_turn_it_was_measured_in():
    """A machine that is half as fast in one turn takes twice the floor there, and the share stays."""
    limits, suite = Limits(small=True), RooflineSuite("small", 1)
    machines = limits.machines({"matmul": [1.0, 2.0], "copy": [0.5, 1.0]})
    assert machines[0].flop_s == 2 * machines[1].flop_s and machines[0].bytes_s == 2 * machines[1].bytes_s
    row = suite._row(Row("fedavg", [3.0, 6.0]), machines, 0.0, machines[0].bytes_s)
    assert row["achieved_over_floor"] == row["least"] == row["largest"] == pytest.approx(1 / 3)
    assert row["bound_by"] == "bytes" and row["floor_s"] == pytest.approx(1.5)


@pytest.mark.slow
def test_what_a_kernel_needs_at_least():
    suite = RooflineSuite("full", 1)
    needs, model, weights = suite.needs(), 4 * 6_603_710.0, 6_601_504.0
    forward = 2.0 * (784 * 25 * 32 + 196 * 800 * 64 + 3136 * 2048 + 2048 * 62)
    flop, size = needs["local_training"]
    assert flop == pytest.approx(3 * forward * 1000, rel=1e-3) and size == 30 * model  # 10 clients x 5 steps x 20
    assert needs["maskfedavg"] == (0.0, pytest.approx(12 * model + 10 * weights / 8, rel=1e-6))
    assert needs["levels"] == (0.0, pytest.approx(5 * weights, rel=1e-6))
    assert needs["evaluation"][0] == pytest.approx(forward * 1000, rel=1e-3)
    assert needs["evaluation"][1] == model + 1000 * 784


@pytest.mark.slow
def test_rows_file_and_table(tmp_path):
    out = tmp_path / "roofline.json"
    assert run_suite(Request("roofline", str(out), 1, "small")) == 0
    report = json.loads(out.read_text())
    assert report["limits"]["flop_s"] > 0 and report["limits"]["bytes_s"] > 0
    assert [row["kernel"] for row in report["rows"]] == KERNELS
    for row in report["rows"]:
        assert row["bound_by"] in ("flop", "bytes") and row["median"] > 0
        # one turn: the medians are of that turn
        assert row["achieved_over_floor"] == pytest.approx(row["floor_s"] / row["median"])
        assert row["least"] <= row["achieved_over_floor"] <= row["largest"]
    text = out.with_suffix(".md").read_text()
    assert all(f"| {kernel} |" in text for kernel in KERNELS) and "GFLOP/s" in text

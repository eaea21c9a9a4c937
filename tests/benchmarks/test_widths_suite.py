"""The suite `widths` at its small size."""

import json

import pytest

from prfl_jax.benchmarks.suite import Request, run_suite


@pytest.mark.slow
def test_rows_file_and_table(tmp_path):
    out = tmp_path / "widths.json"
    assert run_suite(Request("widths", str(out), repeats=2, size="small")) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [(row["way"], row["density_pct"]) for row in rows] == [
        ("at full size", 100),
        *(("in widths", percent) for percent in (25, 50, 75, 100)),
    ]
    for row in rows:
        assert len(row["runs"]) == 2 and row["ratio_min"] <= row["ratio"] <= row["ratio_max"]
        assert row["compile_s"] > 0 and (row["way"] != "at full size" or row["ratio"] == 1.0)
    assert "| cnn, density 25 %, in widths |" in out.with_suffix(".md").read_text()

"""The suite `axes` at its small size: every way trains the same rounds."""

import json

import jax
import numpy as np
import pytest

from prfl_jax.benchmarks import axes
from prfl_jax.benchmarks.suite import Request, run_suite
from prfl_jax.benchmarks.workload import SIZES, Windows


@pytest.mark.slow
def test_rows_file_and_table(tmp_path, capsys):
    out = tmp_path / "axes.json"
    assert run_suite(Request("axes", str(out), repeats=3, size="small")) == 0
    rows = json.loads(out.read_text())["rows"]
    names = ["map", "vmap of 2", "vmap of 3", "vmap ahead"]
    assert [(row["way"], row["windows"]) for row in rows] == [(name, n) for n in (1, 3) for name in names]
    for row in rows:
        assert len(row["runs"]) == 3 and row["ratio_min"] <= row["ratio"] <= row["ratio_max"]
        assert row["ms_per_update"] == pytest.approx(1e3 * row["median"] / 3)
        assert row["way"] != "map" or row["ratio"] == 1.0
    assert "| vmap ahead | 3 |" in out.with_suffix(".md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("together", [True, False])
def test_every_way_trains_the_same(together):
    work = SIZES["small"]
    totals = []
    for settings in axes.ways(work.clients, accelerator=False).values():
        window = Windows(work, most=work.clients, **settings)
        for _ in range(2):
            window.run(axes.plans(window, work, together, "train" in settings))
        totals.append(jax.tree.map(np.asarray, window._state.total))
    assert np.abs(jax.tree.leaves(totals[0])[0]).max() > 0
    for total in totals[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), total, totals[0])

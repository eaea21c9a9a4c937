"""What the PR-FL study's tables and figures say, from reports that are made up."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure
from study_reports import fake, material, rows_of

from prfl_jax.studies import curves
from prfl_jax.studies.columns import Column
from prfl_jax.studies.prfl import figures, presets, tables
from prfl_jax.studies.reports import lasting


def test_three_densities_by_the_clock_are_the_papers_example():
    assert tables.example_ratio() == pytest.approx(1.99)


def test_spread_paired_differences_and_ratios(tmp_path):
    column = Column("c", "C", lambda c: None, (0.5, 0.9), "why", ("femnist", "iid"), ("prfl", "fedavg"))
    prfl = [fake(0, 0.9, {"0.5": 100.0, "0.9": 400.0}), fake(1, 0.8, {"0.5": 200.0, "0.9": None})]
    other = [fake(0, 0.7, {"0.5": 300.0, "0.9": None}), fake(1, 0.75, {"0.5": 300.0, "0.9": None})]
    made = material(tmp_path, (column,), {("c", "prfl"): prfl, ("c", "fedavg"): other}, 2)
    tables.table4(made)
    first, second, third, fourth = rows_of(tmp_path / "table4.csv")
    assert first["never below from, s"] == second["never below from, s"] == "40 (40 to 40)"
    assert third["never below from, s"] == "50, 1 of 2 seeds" and fourth["never below from, s"] == "-"
    assert lasting(prfl[0], 0.9) == 50 and lasting(prfl[1], 0.9) is None
    assert lasting(prfl[0], 0.3) == 10 and lasting(prfl[0], 0.35) == 40
    assert first["first reached, s"] == "150 (100 to 200)" and third["first reached, s"] == "400, 1 of 2 seeds"
    assert second["less PR-FL's, s"] == "+150 (+100 to +200)"
    assert second["PR-FL : method, ours"] == "0.50 (0.33 to 0.67)"
    assert second["PR-FL : method, paper"] == f"{10700 / 136300:.2f}"
    assert fourth["seeds"] == "2" and fourth["first reached, s"] == "-" == fourth["less PR-FL's, s"]
    tables.table5(made)
    assert rows_of(tmp_path / "table5.csv")[1]["less PR-FL's"] == "-12.50 (-20.00 to -5.00)"


def test_norecover_is_void_where_prfl_has_not_recovered(tmp_path):
    column = Column("c", "C", lambda c: None, (0.5, 0.9), "why", None, ("prfl", "prfl_norecover"))
    for percent, shown in ((88, "void"), (100, "70.00")):
        reached = {"0.5": 1.0, "0.9": None}
        reports = {("c", "prfl"): [fake(0, 0.9, reached, percent)], ("c", "prfl_norecover"): [fake(0, 0.7, reached)]}
        tables.table5(material(tmp_path, (column,), reports))
        assert rows_of(tmp_path / "table5.csv")[1]["ours, %"] == shown
        assert ("noRecover is void" in (tmp_path / "table5.md").read_text()) == (shown == "void")
    alone = {("c", "prfl_norecover"): [fake(3, 0.7, {"0.5": 1.0, "0.9": None})]}
    tables.table5(material(tmp_path, (column,), alone))
    assert "PR-FL was not run with seed 3" in (tmp_path / "table5.md").read_text()


def test_a_run_that_is_not_finite_is_told_and_ends_its_own_curve(tmp_path):
    column = Column("c", "C", lambda c: None, (0.5, 0.9), "why", None, ("prfl", "fedavg"))
    reached = {"0.5": 20.0, "0.9": None}
    good, bad = fake(0, 0.8, reached), fake(1, None, reached)
    bad["ended"] = {"how": "not_finite"}
    bad["curves"]["mask"] = {"t_s": [10, 20], "accuracy": [0.2, 0.4]}
    reports = {("c", "prfl"): [good, bad]}
    tables.table5(material(tmp_path, (column,), reports, 2))
    row = rows_of(tmp_path / "table5.csv")[0]
    assert row["seeds"] == "2, of which 1 not finite" and row["ours, %"] == "80.00, 1 of 2 seeds"
    ax = Figure().subplots()
    mean = curves.curve(ax, [good, bad], "PR-FL", "k")
    assert mean == pytest.approx([30, 50, 30, 50, 80])  # both, both, then the good one alone
    assert ax.get_lines()[0].get_label() == "PR-FL (1 of 2 not finite)"


def test_the_event_log_is_the_clocks(tmp_path):
    config = presets.cpu().columns[0].config("fedasyn", 0)
    rounds, ends = figures.event_log(config, 12)
    assert ends == [7.0 * n for n in range(1, 13)]
    for r in rounds:
        assert r["dispatched"] <= r["downloaded"] <= r["computed"] <= r["arrived"] <= r["closed"] in ends
        assert r["dispatched"] == 0 or r["dispatched"] in ends
    by_client = [sum(r["client"] == c for r in rounds) for c in range(10)]
    assert by_client[0] > by_client[5] > 0

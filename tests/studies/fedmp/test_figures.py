"""FedMP's figures: drawn from what there is, and the numbers behind them by hand."""

import pytest
from fedmp_settings import setting
from study_reports import material, rows_of, run_of

from prfl_jax.studies.fedmp import figures

NEVER = {"0.5": None, "0.9": None}


def runs(*times, values=(0.2, 0.5, 0.6, 0.9), **more):
    """A run for each time to 90 %, by seed."""
    return [run_of(list(values), {"0.5": t, "0.9": t}, seed, **more) for seed, t in enumerate(times)]


def drawn(out, name, *words):
    assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    text = (out / f"{name}.svg").read_text()
    assert "A TEST" in text and all(word in text for word in words), name


def test_curves_and_schemes(tmp_path):
    base = setting()
    values = {"fedavg": [0.2, 0.5, 0.6, 0.9], "fedmp": [0.3, 0.8, 0.9, 0.95], "fedmp_bsp": [0.3, 0.7, 0.6]}
    reports = {("cnn", method): [run_of(own, NEVER, 0), run_of(own, NEVER, 1)] for method, own in values.items()}
    made = material(tmp_path, (base,), reports, 2, mark="A TEST")
    figures.fig6(made)
    drawn(tmp_path, "fig6", "Syn-FL", "FedMP", "simulated time (s)", "90 %")
    figures.fig7(made)
    drawn(tmp_path, "fig7", "R2SP", "BSP", "round")
    first, second = rows_of(tmp_path / "fig7.csv")  # after three rounds, which the shorter run has
    assert first["rounds"] == second["rounds"] == "3 (3 to 3)"
    assert (first["test metric"], second["test metric"]) == ("90.00 (90.00 to 90.00)", "60.00 (60.00 to 60.00)")
    assert second["less R2SP's"] == "-30.00 (-30.00 to -30.00)" and first["less R2SP's"] == ""


def test_theta_relative_to_the_shortest(tmp_path):
    columns = [setting(), *(setting(f"t{v}", sweep="theta", value=v, methods=("fedmp",)) for v in (0.01, 0.25, 0.5))]
    reports = {
        ("cnn", "fedmp"): runs(10.0, 30.0), ("t0.01", "fedmp"): runs(10.0), ("t0.25", "fedmp"): runs(25.0, None),
        ("t0.5", "fedmp"): runs(None),
    }  # fmt: skip
    figures.fig4(material(tmp_path, tuple(columns), reports, mark="A TEST"))
    drawn(tmp_path, "fig4", "granularity theta", "cnn")
    rows = {row["theta"]: row for row in rows_of(tmp_path / "fig4.csv")}
    assert list(rows) == ["0.01", "0.1", "0.25", "0.5"]  # the base setting's own theta in its place
    assert [row["relative to the shortest"] for row in rows.values()] == ["1.00", "2.00", "2.50", "-"]
    assert rows["0.25"]["target first reached, s"] == "25, 1 of 2 seeds"


def test_fixed_ratios_at_shares_of_the_budget(tmp_path):
    columns = (setting(), setting("r4", sweep="ratio", value=0.4, methods=("fedmp",)))
    reports = {("cnn", "fedavg"): runs(None), ("r4", "fedmp"): runs(None, values=(0.1, 0.2, 0.3, 0.4))}
    figures.fig2(material(tmp_path, columns, reports, mark="A TEST"))
    drawn(tmp_path, "fig2", "ratio 0.4", "over rounds", "pruning ratio of all workers")
    whole, pruned = rows_of(tmp_path / "fig2.csv")  # the budget is 40 s, a round 10 s
    assert [whole[f"after {share} % of the budget"] for share in (25, 50, 100)] == ["20.00", "50.00", "90.00"]
    assert [pruned[f"after {share} % of the budget"] for share in (25, 50, 100)] == ["10.00", "20.00", "40.00"]
    assert (whole["ratio"], pruned["ratio"]) == ("0", "0.4")


def test_a_run_that_was_not_finite_has_no_later_values(tmp_path):
    columns = (
        setting(methods=("fedavg", "fedmp", "fedmp_bsp")),
        setting("r4", sweep="ratio", value=0.4, methods=("fedmp",)),
    )
    bad = runs(None, values=(0.1, 0.2), ended={"how": "not_finite"})
    reports = {
        ("cnn", "fedavg"): runs(None),
        ("r4", "fedmp"): bad,
        ("cnn", "fedmp"): runs(None),
        ("cnn", "fedmp_bsp"): bad,
    }
    made = material(tmp_path, columns, reports)
    figures.fig2(made)
    _, pruned = rows_of(tmp_path / "fig2.csv")
    assert [pruned[f"after {share} % of the budget"] for share in (25, 50, 100)] == ["10.00", "20.00", "-"]
    assert pruned["seeds"] == "1, of which 1 not finite"
    figures.fig7(made)
    assert [row["seeds"] for row in rows_of(tmp_path / "fig7.csv")] == ["1", "1, of which 1 not finite"]


@pytest.mark.parametrize(
    ("make", "name", "sweep", "value", "words"),
    [
        (figures.fig8, "fig8", "scenario", "high", ("Medium", "High")),
        (figures.fig9, "fig9", "noniid", 30, ("level 0", "level 30")),
        (figures.fig10, "fig10", "workers", 20, ("10 workers", "20 workers")),
    ],
)
def test_bars_by_what_is_varied(tmp_path, make, name, sweep, value, words):
    columns = (setting(), setting("other", sweep=sweep, value=value), setting("x", "alexnet"))
    reports = {
        ("cnn", "fedavg"): runs(40.0), ("cnn", "fedmp"): runs(10.0, round_s=4.0), ("other", "fedavg"): runs(None),
        ("other", "fedmp"): runs(20.0, round_s=5.0), ("x", "fedmp"): runs(1.0),
    }  # fmt: skip
    make(material(tmp_path, columns, reports, mark="A TEST"))
    drawn(tmp_path, name, *words, "Syn-FL", "not reached", "cnn, to 90 %")
    rows = {(row["setting"], row["method"]): row for row in rows_of(tmp_path / f"{name}.csv")}
    assert list(rows) == [(s, m) for s in ("CNN", "OTHER") for m in ("Syn-FL", "FedMP")]  # alexnet has one setting
    assert rows["CNN", "FedMP"]["speed-up over Syn-FL"] == rows["CNN", "Syn-FL"]["FedMP's over it"] == "4.00"
    assert (rows["OTHER", "FedMP"]["speed-up over Syn-FL"], rows["OTHER", "FedMP"]["s a round"]) == ("-", "5")
    assert rows["OTHER", "FedMP"]["Syn-FL's round : its"] == "2.00"
    budgets = {(row["setting"], row["method"]): row["budget, s"] for row in rows_of(tmp_path / f"{name}_budget.csv")}
    assert list(budgets) == list(rows) and set(budgets.values()) == {"40"}
    make(material(tmp_path / "nothing", columns, {}, mark="A TEST"))
    assert not (tmp_path / "nothing").exists()


def test_the_target_of_what_is_varied_serves_the_base_too(tmp_path):
    skewed = setting("skewed", sweep="noniid", value=30, thresholds=(0.9, 0.5))  # its target is 50 %
    reports = {("cnn", "fedmp"): [run_of([0.5], {"0.5": 7.0, "0.9": None})], ("skewed", "fedmp"): runs(9.0)}
    figures.fig9(material(tmp_path, (setting(), skewed), reports, mark="A TEST"))
    assert [(r["target"], r["first reached, s"]) for r in rows_of(tmp_path / "fig9.csv")] == [
        ("50 %", "7"),
        ("50 %", "9"),
    ]


def test_synchronous_and_asynchronous(tmp_path):
    own = setting(methods=("fedavg", "fedmp", "asyn_fl", "asyn_fedmp"))
    reports = {
        ("cnn", m): runs(t) for m, t in (("fedavg", 40.0), ("fedmp", 10.0), ("asyn_fl", 30.0), ("asyn_fedmp", 20.0))
    }
    figures.fig12(material(tmp_path, (own,), reports, mark="A TEST"))
    drawn(tmp_path, "fig12", "Asyn-FedMP", "Asyn-FL")
    rows = {row["method"]: row for row in rows_of(tmp_path / "fig12.csv")}
    assert {m: row["FedMP's over it"] for m, row in rows.items()} == {
        "Syn-FL": "4.00", "FedMP": "", "Asyn-FL": "3.00", "Asyn-FedMP": "2.00"
    }  # fmt: skip
    assert "10 to 35 % less" in (tmp_path / "fig12.md").read_text()

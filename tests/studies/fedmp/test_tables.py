"""FedMP's tables, from reports that are made up: every number by hand."""

import pytest
from fedmp_settings import setting
from study_reports import PERPLEXITY, material, rows_of, run_of

from prfl_jax.config.defaults import default_config
from prfl_jax.studies.fedmp import paper, tables
from prfl_jax.studies.fedmp.setting import BASE_VALUES, method_name

# seed -> (values, first reached): FedMP's rounds are half as long
SYN = [
    run_of([0.2, 0.5, 0.6, 0.9], {"0.5": 20.0, "0.9": 40.0}, 0),
    run_of([0.2, 0.5, 0.6, 0.8], {"0.5": 20.0, "0.9": None}, 1),
]
MP = [
    run_of([0.5, 0.4, 0.7, 0.95], {"0.5": 5.0, "0.9": 20.0}, 0, 5.0),
    run_of([0.4, 0.9, 0.9, 0.9], {"0.5": 10.0, "0.9": 10.0}, 1, 5.0),
]
PROX = [run_of([0.3, 0.9, 0.9, 0.85], {"0.5": 20.0, "0.9": 20.0}, 0)]
REPORTS = {("cnn", "fedavg"): SYN, ("cnn", "fedmp"): MP, ("cnn", "fedprox"): PROX}


def by_method(file, **cells):
    return {row["method"]: row for row in rows_of(file) if all(row[key] == cell for key, cell in cells.items())}


def test_table3_by_hand(tmp_path):
    tables.table3(material(tmp_path, (setting(),), REPORTS, 2, mark="A TEST"))
    rows = by_method(tmp_path / "table3.csv")
    assert list(rows) == ["Syn-FL", "FedProx", "FedMP"]  # UP-FL and FlexCom have no run
    assert rows["Syn-FL"]["ours"] == "85.00 (80.00 to 90.00)" and rows["Syn-FL"]["less Syn-FL's"] == ""
    assert rows["FedMP"]["ours"] == "92.50 (90.00 to 95.00)"
    assert rows["FedMP"]["less Syn-FL's"] == "+7.50 (+5.00 to +10.00)"  # .95 - .9 and .9 - .8
    assert rows["FedProx"]["less Syn-FL's"] == "-5.00"
    assert (rows["FedMP"]["paper"], rows["FedMP"]["paper, less Syn-FL's"]) == ("97.17", "+3.34")
    assert rows["FedMP"]["budget, s"] == "40" and rows["FedMP"]["seeds"] == "2"
    assert rows["FedMP"]["s a round"] == "5 (5 to 5)"
    assert rows["FedMP"]["Syn-FL's round : its"] == "2.00 (2.00 to 2.00)"
    text = (tmp_path / "table3.md").read_text()
    assert "A TEST" in text and "not run yet: CNN: UP-FL, FedProx (1 of 2 seeds), FlexCom" in text

    rows = by_method(tmp_path / "table3_speed.csv", target="90 %")
    assert rows["Syn-FL"]["first reached, s"] == "40, 1 of 2 seeds"
    assert rows["FedMP"]["first reached, s"] == "15 (10 to 20)"
    assert rows["FedMP"]["never worse from, s"] == "15 (10 to 20)"
    assert rows["FedMP"]["speed-up over Syn-FL"] == "2.00, 1 of 2 seeds"  # 40 / 20; seed 1 of Syn-FL never
    assert rows["FedProx"]["speed-up over Syn-FL"] == "2.00" and rows["FedProx"]["never worse from, s"] == "-"
    assert rows["FedProx"]["FedMP's over it"] == "1.00"  # 20 / 20
    assert rows["FedProx"]["FedMP's over it, paper"] == "2.00"
    rows = by_method(tmp_path / "table3_speed.csv", target="50 %")
    assert rows["Syn-FL"]["FedMP's over it"] == "3.00 (2.00 to 4.00)"  # 20 / 5 and 20 / 10
    assert rows["FedMP"]["never worse from, s"] == "12 (10 to 15)"  # .5, .4, .7: below again at 10 s
    assert rows["FedProx"]["FedMP's over it, paper"] == "-"  # printed for the target alone


def test_table4_counts_downwards(tmp_path):
    lstm = setting("lstm", "lstm", methods=paper.LANGUAGE, thresholds=(500.0, 400.0))
    times = [{"500": 20.0, "400": None}, {"500": 10.0, "400": 30.0}]
    reports = {
        ("lstm", "fedavg"): [run_of([900.0, 450.0, 520.0, 480.0], times[0], metric=PERPLEXITY)],
        ("lstm", "fedmp"): [run_of([500.0, 450.0, 390.0, 380.0], times[1], metric=PERPLEXITY)],
    }
    tables.table4(material(tmp_path, (lstm, setting()), {**reports, **REPORTS}))
    rows = by_method(tmp_path / "table4.csv")
    assert list(rows) == ["Syn-FL", "FedMP"]
    assert (rows["FedMP"]["ours"], rows["FedMP"]["less Syn-FL's"]) == ("380.00", "-100.00")
    assert (rows["FedMP"]["paper"], rows["FedMP"]["paper, less Syn-FL's"]) == ("146.95", "-1.20")
    assert "Syn-FL 156.35" in (tmp_path / "table4.md").read_text()
    rows = by_method(tmp_path / "table4_speed.csv", target="500")
    assert (rows["Syn-FL"]["first reached, s"], rows["Syn-FL"]["never worse from, s"]) == ("20", "40")
    assert rows["Syn-FL"]["FedMP's over it"] == "2.00"
    rows = by_method(tmp_path / "table4_speed.csv", target="400")
    assert rows["Syn-FL"]["FedMP's over it"] == "-" and rows["Syn-FL"]["FedMP's over it, paper"] == "1.60"


def test_where_pruning_alone_differs_syn_fl_is_the_base_settings(tmp_path):
    columns = (setting(), setting("cnn_floor_0.5", sweep="floor", value=0.5, methods=("fedmp", "fedmp_bsp")))
    reports = {**REPORTS, ("cnn_floor_0.5", "fedmp"): MP[:1], ("cnn_floor_0.5", "fedmp_bsp"): PROX}
    tables.floor(material(tmp_path, columns, reports))
    rows = by_method(tmp_path / "floor.csv", setting="CNN_FLOOR_0.5")
    assert {name: row["less Syn-FL's"] for name, row in rows.items()} == {"FedMP": "+5.00", "FedMP with BSP": "-5.00"}
    assert "FedProx" not in by_method(tmp_path / "floor.csv")


def test_rows_in_no_paper_stand_beside_syn_fl_and_fedmp(tmp_path):
    own = setting(methods=(*paper.MAIN, "fedmp_nested"))
    tables.mixtures(material(tmp_path, (own,), {**REPORTS, ("cnn", "fedmp_nested"): MP}))
    assert list(by_method(tmp_path / "mixtures.csv")) == ["Syn-FL", "FedMP", "FedMP, nested"]
    assert by_method(tmp_path / "mixtures_speed.csv", target="90 %")["FedMP, nested"]["FedMP's over it"][:4] == "1.00"


def test_ratios_by_worker_and_cluster(tmp_path):
    chosen = [{"client": n, "ratios": {"tenths": [3, 0, 1] + [0] * 7, "mean_last": 0.125, "last": 4}} for n in range(3)]
    empty = {"client": 3, "ratios": {"tenths": [0] * 10, "mean_last": None, "last": 0}}
    run = run_of([0.5], {}, clients=[*chosen, empty, {"client": 4}])
    high = setting("cnn_high", sweep="scenario", value="high")
    tables.ratios(material(tmp_path, (high,), {("cnn_high", "fedmp"): [run], ("cnn_high", "fedavg"): SYN}))
    rows = rows_of(tmp_path / "ratios.csv")
    assert [(r["method"], r["worker"], r["cluster"]) for r in rows] == [
        ("FedMP", "0", "A"), ("FedMP", "1", "A"), ("FedMP", "2", "A"), ("FedMP", "3", "B")
    ]  # fmt: skip
    first, last = rows[0], rows[3]
    assert (first["rounds"], first["0 to 0.1, %"], first["0.2 to 0.3, %"]) == ("4", "75", "25")
    assert (
        first["mean of the last, at most 100"] == "0.12"
        and last["0 to 0.1, %"] == last["mean of the last, at most 100"] == "-"
    )


@pytest.mark.parametrize(
    ("own", "sweep", "method", "factor"),
    [
        (setting(), "", "flexcom", 1.8),
        (setting(), "scenario", "fedavg", 2.8),  # the base setting is Medium
        (setting("h", sweep="scenario", value="high"), "scenario", "fedavg", 4.1),
        (setting("w", "alexnet", "workers", 30), "workers", "flexcom", 1.6),
        (setting("n", "vgg19", "noniid", 30), "noniid", "fedavg", 1 / 0.7),
        (setting("lstm", "lstm"), "", "up_fl", 2.0),
        (setting("w", "cnn", "workers", 20), "workers", "fedavg", None),
    ],
)
def test_the_papers_speed_ups(own, sweep, method, factor):
    assert tables.printed_speedups(own, sweep).get(method) == (None if factor is None else pytest.approx(factor))


def test_the_base_setting_has_the_defaults():
    assert BASE_VALUES["floor"] == default_config().density.min_density and BASE_VALUES["theta"] == 0.1
    assert [method_name(m) for m in paper.MAIN] == ["Syn-FL", "UP-FL", "FedProx", "FlexCom", "FedMP"]

"""The edge pruning study's figures: drawn from what there is, and the numbers behind them by hand."""

import numpy as np
import pytest
from edge_pruning_runs import report, setting
from study_reports import material, rows_of

from prfl_jax.studies.edge_pruning import figures
from prfl_jax.studies.edge_pruning.devices import whole_kib

FALLS = report([0.1] * 150 + [0.7] * 60 + [0.6] * 40 + [0.9] * 50, [0.3] * 300)  # half-way is 150


def drawn(out, name, *words):
    assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    text = (out / f"{name}.svg").read_text()
    assert "A TEST" in text and all(word in text for word in words), name


def test_curves_over_rounds(tmp_path):
    reports = {("mnist", "layerwise"): [FALLS], ("mnist", "fedavg"): [report([0.2, 0.4, 0.6])]}
    made = material(tmp_path, (setting(),), reports, mark="A TEST")
    for make, words in (
        (figures.fig8, ("round", "simulated time (s)", "90 %")),
        (figures.fig9, ("size of the whole Conv2 (KiB)", "FedAvg, no pruning")),
        (figures.fig10, ("simulated time (s)", "edge pruning, layerwise")),
        (figures.fig11, ("edge pruning, layerwise",)),
    ):
        make(made)
        drawn(tmp_path, make.__name__, *words)
    layerwise, fedavg = rows_of(tmp_path / "fig11.csv")
    assert layerwise["largest fall, points"] == "10.00"  # 0.1, 0.7, 0.6, 0.9 after 150, 200, 250, 300
    assert layerwise["mean change either way, points"] == "33.33"
    assert fedavg["largest fall, points"] == "-"  # three rounds
    make = figures.fig8
    make(material(tmp_path / "nothing", (setting(),), {}, mark="A TEST"))
    assert not (tmp_path / "nothing").exists()


def test_falls_are_from_one_fiftieth_round_to_the_next():
    assert figures.steps(FALLS) == pytest.approx([0.6, -0.1, 0.3])
    values = [0.9] * 200
    values[99], values[149], values[199] = 0.8, 0.5, 0.6
    assert figures.steps(report(values)) == pytest.approx([-0.3, 0.1])


def test_sizes_begin_with_the_whole_model_and_hold_to_the_end():
    short = report([0.1, 0.2, 0.3], [0.5, 0.25, 0.25])
    short["masks"]["curve"] = {"window": [1, 2], "server": [0.5, 0.25]}
    assert figures.retentions(short) == ([0, 1, 2, 3], [1.0, 0.5, 0.25, 0.25])
    assert figures.retentions(report([0.1, 0.2])) == ([0, 2], [1.0, 1.0])
    assert figures._size(short)[1] == [whole_kib(share) for share in (1.0, 0.5, 0.25, 0.25)]


def test_drawn_users_beside_complement_sparsification(tmp_path):
    accuracy = np.r_[np.full(100, 0.6), np.full(100, 0.5), np.full(350, 0.4)]
    server = np.r_[np.full(100, 0.4), np.full(100, 0.3), np.full(350, 0.1)]  # sparsities 60, 70 and 90 %
    accuracy[520] = 0.99  # after the first 500 rounds
    reports = {
        ("s", "layerwise"): [report(accuracy.tolist(), server.tolist())],
        ("s", "fedavg"): [report([0.2] * 600)],
    }
    made = material(tmp_path, (setting("s", sampled=True), setting()), reports, mark="A TEST")
    figures.fig12(made)
    figures.fig13(made)
    drawn(tmp_path, "fig12", "round")
    drawn(tmp_path, "fig13", "density (%)")
    ours, fedavg, theirs, _, cs, _ = rows_of(tmp_path / "fig12.csv")
    assert ours["best accuracy in 500 rounds, %"] == "60.0" and ours["at a sparsity of 70 % and more"] == "50.0"
    assert ours["at a sparsity of 80 % and more"] == "40.0" and ours["sparsity after 500 rounds, %"] == "90.0"
    assert fedavg["at a sparsity of 70 % and more"] == "-" and fedavg["in the end, %"] == "0.0"
    assert (theirs["best accuracy in 500 rounds, %"], theirs["sparsity after 500 rounds, %"]) == ("74.6", "84.6")
    assert cs["at a sparsity of 80 % and more"] == "below 60.0"
    figures.fig8(made)
    assert not (tmp_path / "fig8.png").exists()  # the base setting has no run

"""The edge pruning study's tables, from reports that are made up: every number by hand."""

import pytest
from edge_pruning_runs import report, setting
from study_reports import material, rows_of

from prfl_jax.studies.edge_pruning import paper, tables
from prfl_jax.studies.edge_pruning.devices import SENT_S, WEIGHT_S, set_devices, values, weights, whole_kib

REPORTS = {
    ("mnist", "layerwise"): [report([0.4, 0.9, 0.8, 0.92], [0.6, 0.6, 0.2, 0.1]),
                             report([0.5, 0.6, 0.7, 0.8], [0.4, 0.4, 0.4, 0.3], seed=1)],
    ("mnist", "fedavg"): [report([0.6, 0.9, 0.95, 0.96])],
    ("other", "layerwise"): [report([0.1, 0.2, 0.2, 0.2], [0.5, 0.5, 0.5, 0.5])],
}  # fmt: skip
COLUMNS = (setting(), setting("other", variant="v", methods=("layerwise",)))


def test_table2_by_hand(tmp_path):
    tables.table2(material(tmp_path, COLUMNS, REPORTS, 2, mark="A TEST"))
    ours, printed, other = rows_of(tmp_path / "table2.csv")  # threshold has no run, FedAvg never prunes
    assert ours["seeds"] == "2" and ours["initial rounds"] == "1 (1 to 1)"
    assert ours["retained after them, %"] == "50.0 (40.0 to 60.0)" and ours["their time, s"] == "10.0 (10.0 to 10.0)"
    assert ours["retained in the end, %"] == "20.0 (10.0 to 30.0)"
    assert ours["clients' own masks, mean, %"] == "30.0 (20.0 to 40.0)"
    assert (printed["whose"], printed["initial rounds"], printed["their time, s"]) == ("paper", "2", "72.3")
    assert printed["retained in the end, %"] == "3.7" and (other["setting"], other["whose"]) == ("OTHER", "ours")
    text = (tmp_path / "table2.md").read_text()
    assert "A TEST" in text and "not run yet: MNIST: edge pruning, threshold" in text


def test_table3_by_hand(tmp_path):
    tables.table3(material(tmp_path, COLUMNS, REPORTS, 2))
    ours, printed, fedavg, other = rows_of(tmp_path / "table3.csv")
    assert ours["accuracy, %"] == "86.00 (80.00 to 92.00)" and ours["own models, %"] == "95.00 (95.00 to 95.00)"
    assert (ours["first level, s"], ours["second level, s"]) == ("15 (10 to 20)", "20, 1 of 2 seeds")
    assert ours["converged, s"] == "40 (40 to 40)" and fedavg["converged, s"] == "40"
    assert (ours["all rounds, s"], ours["rounds"]) == ("40 (40 to 40)", "4 (4 to 4)")
    assert ours["retained, %"] == "20.0 (10.0 to 30.0)" and ours["size, KiB"] == "1,000 (1,000 to 1,000)"
    assert ours["whole Conv2, KiB"] == "5,965 (3,385 to 8,545)"  # a bitmap of 805.8, and 10 and 30 % of 25,796
    # a client keeps weights and squared gradients of 4 bytes each and a bit a weight, of the network that is trained
    assert ours["client memory, MB"] == f"{(4 * values(0.1) + (4 + 1 / 8) * sum(weights(0.1))) / 1e6:.2f}"
    assert [printed[k] for k in ("accuracy, %", "first level, s", "retained, %", "size, KiB")] == [
        "83.00", "550", "3.7", "1,760"
    ]  # fmt: skip
    assert (fedavg["method"], fedavg["retained, %"], fedavg["own models, %"]) == ("FedAvg, no pruning", "100.0", "-")
    assert fedavg["size, KiB"] == f"{26.4e6 / 1024:,.0f}" and fedavg["client memory, MB"] == "0.00"
    assert other["setting"] == "OTHER" and other["accuracy, %"] == "20.00"
    assert "levels in percent are 50 and 90 (the paper's: 70 and 80)" in (tmp_path / "table3.md").read_text()


def test_methods_whose_clients_have_no_masks_of_their_own(tmp_path):
    """An entry of a client has the server's retention then; PruneFL's clients keep a sum of gradients of each value."""
    methods = ("prunefl", "conventional", "snip", "layerwise")
    reports = {("mnist", method): [report([0.4, 0.9], [0.6, 0.1])] for method in methods}
    for method in methods[:3]:
        del reports["mnist", method][0]["own_models"]
    given = material(tmp_path, (setting(methods=methods),), reports)
    tables.table2(given)
    tables.table3(given)
    for name in ("table2", "table3"):
        rows = [row for row in rows_of(tmp_path / f"{name}.csv") if row["whose"] == "ours"]
        assert [row["clients' own masks, mean, %"] for row in rows] == ["-", "-", "-", "20.0"]
    memory = [row["client memory, MB"] for row in rows]
    assert memory[:3] == [f"{4 * values(0.1) / 1e6:.2f}", "0.00", "0.00"] and float(memory[0]) > 0
    assert "10 steps on the samples of client 0 alone" in (tmp_path / "table2.md").read_text()
    assert "in PruneFL 4 bytes for each value that it trains" in (tmp_path / "table3.md").read_text()


def test_both_of_prunefls_printed_retentions():
    assert tables._printed_initial("prunefl", paper.TABLE2["prunefl"])[3] == "13.4 (Table 3: 8.6)"
    assert tables._printed("prunefl", paper.TABLE3["prunefl"])[8] == "8.6 (Table 2: 13.4)"
    assert tables._printed("snip", paper.TABLE3["snip"])[8] == "3.7"


def test_convergence_ignores_an_early_peak_below_the_last_level():
    curve = [0.5, 0.7, *[0.796] * 3, *[0.8] * 15]  # the last tenth of twenty is 0.8
    assert tables.converged_s(report(curve)) == 30.0
    assert tables.converged_s({**report(curve), "curves": {"mask": {"t_s": [], "accuracy": []}}}) is None


@pytest.mark.parametrize("width", [1.0, 0.25])
def test_a_round_costs_what_prunefls_constants_say(width):
    """5 x (1.2493 s + weights), and 5.5616e-6 s for each kept weight both ways, whatever width is trained."""
    from prfl_jax.clock import in_turn
    from prfl_jax.config.defaults import default_config
    from prfl_jax.submodel.size_from_config import model_size_from_config
    from prfl_jax.transport.measured import measured_seconds

    c = default_config()
    c.data.name, c.model.width, c.clients.number = "mnist_by_writer", width, 5
    set_devices(c)
    size = model_size_from_config(c)
    held = [[share * n for share, n in zip((0.5, 0.2, 0.1, 1.0), size.layers, strict=True)]] * 5
    whole = [share * n for share, n in zip((0.5, 0.2, 0.1, 1.0), (800, 51_200, 6_422_528, 126_976), strict=True)]
    step = 1.2492789765 + sum(n * s for n, s in zip(whole, WEIGHT_S, strict=True))
    assert measured_seconds(c.clients, held, 5) == pytest.approx([5 * step] * 5)
    up, down = in_turn(c.clients.up_mb_s, 5)[0], in_turn(c.clients.down_mb_s, 5)[0]
    sent = size.total * size.bytes_per_value
    assert sent / up / 1e6 + sent / down / 1e6 == pytest.approx(SENT_S * values(1.0))


def test_the_papers_encoding():
    """Table 3's KB are KiB: 4 bytes a kept value and a bitmap."""
    for row in paper.TABLE3.values():
        assert whole_kib(row.retention) == pytest.approx(row.size_kib, abs=1.0)

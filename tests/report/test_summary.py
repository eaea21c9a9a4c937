"""The summary: what it says, how wide it is, and runs that are out of the ordinary."""

from __future__ import annotations

import pytest
from report_records import report_of, simulated_run

from prfl_jax.config.defaults import default_config
from prfl_jax.report import summary_text
from prfl_jax.report.names import bytes_text, density_text, duration_text, percent_text, seconds_text


@pytest.fixture(scope="module")
def fedavg():
    config = default_config().to_dict() | {"strategy": "fedavg"}
    records = simulated_run(prune=False, dt_s=40.0, windows=150, pace_s=1700.0, best=0.94, seed=3)
    return report_of(records, 10, config=config, headline="fedavg")


@pytest.fixture(scope="module")
def prfl(fedavg):
    return report_of(simulated_run(), 10, compare={"fedavg": fedavg})


def row(text, start):
    """The cells of the one line that starts so."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(start)]
    return line.split()


def test_the_accuracy_table_has_both_models_and_strategies(prfl, fedavg):
    text = summary_text(prfl)
    entry = prfl["compare"]["fedavg"]
    assert f"at {entry['t_s']:,.0f} s" in text and entry["t_s"] == 5600.0
    own = row(text, "PR-FL, MaskFedAvg model *")
    assert f"{100 * entry['own_accuracy']:.1f}" in own and f"{100 * prfl['final']['accuracy']:.1f}" in own
    assert own[-4:] == [f"{prfl['time_to_accuracy'][key]:,.0f}" if i == 0 else "s" for key in ("0.8", "0.9")
                        for i in range(2)]  # fmt: skip
    other = row(text, "FedAvg, FedAvg(B) model")  # the other's headline
    assert other[3] == f"{100 * entry['accuracy']:.1f}"
    assert other[5] == f"{100 * fedavg['final']['accuracy']:.1f}"
    assert row(text, "PR-FL, FedAvg(B) model")


def test_where_the_two_server_models_are_one_there_is_one_row(fedavg):
    files = {"mask": "final_model.npz", "fedavg": "final_model.npz"}
    one = {**fedavg, "model": {**fedavg["model"], "files": files}}
    text = summary_text(report_of(simulated_run(), 10, compare={"fedavg": one}))
    assert f"{100 * one['final']['accuracy']:.1f}" in row(text, "FedAvg, server model")
    assert row(summary_text(one), "FedAvg, server model *") and "MaskFedAvg" not in summary_text(one)
    # of before files were named
    same = {**fedavg, "curves": dict.fromkeys(("mask", "fedavg"), fedavg["curves"]["fedavg"])}
    assert row(summary_text(same), "FedAvg, server model *")


def test_the_other_strategies_may_come_as_reports(prfl, fedavg):
    alone = {**prfl, "compare": {}}
    assert summary_text(alone, {"fedavg": fedavg}) == summary_text(prfl)
    assert "FedAvg, " not in summary_text(alone)


def test_a_threshold_that_was_not_reached_is_never():
    text = summary_text(report_of(simulated_run(), 10, thresholds=(0.8, 0.999)))
    assert "99.9 % after" in text and row(text, "PR-FL, MaskFedAvg model *")[-1] == "never"


def test_columns_of_the_clients_table(prfl):
    text = summary_text(prfl)
    slow = prfl["clients"][9]
    expected = ["9", "0.4", f"{slow['updates']:,}", f"{slow['staleness_mean']:.2f}", "0.08"]
    assert row(text, "9  ") == [*expected, f"{slow['recovered_s']:,.0f}", "s"]
    assert row(text, "0  ")[-2:] == ["never", "lower"]
    assert "9 of 9 pruned clients are back at density 1, the last one (client 9)" in text


def test_clients_that_did_not_recover_are_said_so():
    text = summary_text(report_of(simulated_run(windows=60), 10))
    assert row(text, "9  ")[-2:] == ["not", "yet"]
    assert "None of 9 pruned clients is back" in text
    assert "No client was pruned" in summary_text(report_of(simulated_run(prune=False, windows=30), 10))


def test_traffic_and_what_the_split_saved(prfl):
    text = summary_text(prfl)
    assert row(text, "server sent")[2:4] == bytes_text(prfl["bytes_down"]).split()
    assert row(text, "clients sent")[2:4] == bytes_text(prfl["bytes_up"]).split()
    assert f"The delta split saved {bytes_text(prfl['delta_saved']['bytes'])} (" in text
    config = prfl["config"] | {"transport": {"name": "one_copy"}}
    assert "Sending shared parts once saved" in summary_text({**prfl, "config": config})


def test_host_speed_is_said_with_compile_time_apart(prfl):
    text = summary_text(prfl)
    assert f"{prfl['client_updates'] / 100:,.1f} client updates/s, 0.25 s per window" in text
    assert "steady 1 min 40 s; compiling, not counted, 12.2 s; in all 2 min 05 s; peak memory 1,834 MB" in text
    assert "peak memory" not in summary_text({**prfl, "peak_memory_mb": None})


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("horizon", "the horizon was reached"),
        ("rounds", "all windows are done"),
        ("stop_rule", "the stop rule fired"),
        ("interrupted", "interrupted"),
    ],
)
def test_how_the_run_ended(prfl, how, said):
    assert said in summary_text({**prfl, "ended": {"how": how, "detail": None, "client": None, "window": 400}})


def test_a_run_of_less_than_a_second():
    whole = report_of(simulated_run(windows=60), 10, thresholds=(0.8,))
    times = {"simulated_s": 0.0625, "window_stats": whole["window_stats"] | {"length_mean_s": 0.00104}}
    times["time_to_accuracy_curves"] = dict.fromkeys(("mask", "fedavg"), {"0.8": 0.03})
    text = summary_text({**whole, **times})
    assert "60 windows, 0.0625 s simulated" in text and " per window of 0.00104 s (from" in text
    assert row(text, "PR-FL, MaskFedAvg model *")[-2:] == ["0.03", "s"]


def test_a_loss_that_is_not_finite_names_window_and_client():
    end = {"kind": "end", "how": "not_finite", "detail": "try a smaller local.lr " * 8, "client": 3, "window": 2}
    text = summary_text(report_of([end], 10))
    assert "a loss was not finite in window 2 at client 3: try" in text.replace("\n  ", " ")
    assert "no updates were measured" in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("clients", [1, 10, 21, 100, 1500])
def test_it_fits_100_columns_and_a_screen(clients, fedavg):
    report = report_of(simulated_run(clients=clients, windows=45), clients, compare={"fedavg": fedavg})
    lines = summary_text(report).splitlines()
    assert max(map(len, lines)) <= 100 and len(lines) < 52
    assert not any(line != line.rstrip() for line in lines)
    assert summary_text(report).isascii()


def test_speeds_that_are_not_in_the_config_leave_no_column(prfl):
    text = summary_text({**prfl, "config": {"strategy": "prfl"}})
    assert "MB/s" not in text and row(text, "9  ")[1] == f"{prfl['clients'][9]['updates']:,}"


def test_numbers_for_people():
    assert bytes_text(None) == "-" and bytes_text(26_414_840) == "26.41 MB" and bytes_text(0) == "0 MB"
    assert bytes_text(3_456_000_000) == "3.456 GB" and bytes_text(2.5e13) == "25,000 GB"
    assert percent_text(0.93449) == "93.4 %" and percent_text(None) == "-"
    assert seconds_text(12345.6) == "12,346 s" and seconds_text(None, "never") == "never"
    assert [seconds_text(s) for s in (0, 0.01254, 0.3, 2.0, 9.876, 10.4)] == [
        "0 s", "0.0125 s", "0.3 s", "2 s", "9.88 s", "10 s",
    ]  # fmt: skip
    assert [duration_text(s) for s in (0.0, 0.0123, 8.44, 59.97, 200.4, 3600, 7540)] == [
        "0.0 s", "0.012 s", "8.4 s", "1 min 00 s", "3 min 20 s", "1 h 00 min", "2 h 05 min",
    ]  # fmt: skip
    assert [density_text(d) for d in (1.0, 0.08, 0.5, 0.13)] == ["1", ".08", ".5", ".13"]

"""A report against sums made by hand, its schema, and what two equal runs share."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import jsonschema
import pytest
from paths import ROOT
from report_records import of_language_model, report_of, simulated_run

from prfl_jax.report import (
    MetricsWriter,
    comparable,
    load_schema,
    present_version,
    read_metrics,
    read_report,
    write_report,
)
from prfl_jax.system.errors import UserError
from prfl_jax.tasks import ACCURACY, PERPLEXITY, Metric


@pytest.fixture(scope="module")
def validator():
    schema = load_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def scores(accuracy, loss=0.5):
    return {"accuracy": accuracy, "loss": loss}


def small_run():
    """Two clients, four windows; client 1 is pruned after window 1 and back after window 3."""
    common = {"kind": "window", "client_bytes_down": [[0, 10], [1, 5]]}
    yield common | {
        "window": 1, "start_s": 0.0, "end_s": 20.0, "arrivals": [1, 0], "staleness": [0, 0], "round_s": [19.0, 7.0],
        "loss": [0.7, 0.6], "bytes_up": 30, "bytes_down": 10, "bytes_client_down": 15, "waiting_s": [1.0, 13.0],
        "percents": [100, 100], "client_bytes_up": [10, 20],
    }  # fmt: skip
    yield {"kind": "eval", "t_s": 25.0, "window": 1, "model_s": 20.0, "mask": scores(0.5), "fedavg": scores(0.85)}
    yield {
        "kind": "interval", "window": 1, "t_s": 20.0, "percents": [100, 8], "triggered": [False, True], "stop": False,
    }  # fmt: skip
    yield common | {
        "window": 2, "start_s": 20.0, "end_s": 30.0, "arrivals": [], "staleness": [], "round_s": [], "loss": [],
        "bytes_up": 0, "bytes_down": 10, "bytes_client_down": 15, "waiting_s": [], "percents": [100, 8],
        "client_bytes_up": [],
    }  # fmt: skip
    yield {"kind": "eval", "t_s": 50.0, "window": 2, "model_s": 30.0, "mask": scores(0.8), "fedavg": scores(None, None)}
    yield common | {
        "window": 3, "start_s": 30.0, "end_s": 60.5, "arrivals": [0], "staleness": [1], "round_s": [9.0],
        "loss": [0.4], "bytes_up": 10, "bytes_down": 20, "bytes_client_down": 30, "waiting_s": [2.0],
        "percents": [100, 8], "client_bytes_up": [10],
    }  # fmt: skip
    yield {
        "kind": "interval", "window": 3, "t_s": 60.5, "percents": [100, 100], "triggered": [True, True], "stop": True,
    }  # fmt: skip
    yield {"kind": "eval", "t_s": 75.0, "window": 3, "model_s": 60.5, "mask": scores(0.79), "fedavg": scores(0.9)}
    yield common | {
        "window": 4, "start_s": 60.5, "end_s": 80.0, "arrivals": [0, 1], "staleness": [0, 2], "round_s": [8.0, 12.0],
        "loss": [0.3, 0.2], "bytes_up": 20, "bytes_down": 0, "bytes_client_down": 0, "waiting_s": [0.5, 0.25],
        "percents": [100, 100], "client_bytes_up": [10, 10],
    }  # fmt: skip
    yield {
        "kind": "final", "window": 4, "t_s": 80.0,
        "mask": scores(0.9, 0.1) | {"per_class": [1.0, 0.8], "worst_client": {"client": 1, "accuracy": 0.7},
                                    "per_client": [0.95, 0.7]},
        "fedavg": scores(0.91, 0.2) | {"per_class": [0.9, 0.92], "worst_client": {"client": 0, "accuracy": 0.6},
                                       "per_client": [0.6, None]},
    }  # fmt: skip
    yield {"kind": "end", "how": "rounds", "detail": None, "client": None, "window": 4}


def test_a_small_run_adds_up_as_by_hand(validator):
    report = report_of(small_run(), 2)
    validator.validate(report)
    assert (report["windows"], report["simulated_s"], report["client_updates"]) == (4, 80.0, 5)
    assert (report["bytes_up"], report["bytes_down"], report["bytes_client_down"]) == (60, 40, 60)
    assert report["delta_saved"] == {"bytes": 20, "fraction": 1 / 3}
    assert report["window_stats"] == {
        "arrivals_mean": 1.25, "arrivals_min": 0, "arrivals_max": 2, "empty": 1,
        "length_mean_s": 20.0, "length_min_s": 10.0, "length_max_s": 30.5,
    }  # fmt: skip
    assert report["final"]["accuracy"] == 0.9 and report["final"]["loss"] == 0.1
    assert report["final"]["fedavg"]["accuracy"] == 0.91 and report["final"]["t_s"] == 80.0
    assert report["worst_client"] == {"client": 1, "accuracy": 0.7} and report["per_class"] == [1.0, 0.8]
    assert report["stop_rule"] == {"window": 3, "t_s": 60.5}
    assert report["ended"] == {"how": "rounds", "detail": None, "client": None, "window": 4}
    assert report["curves"]["mask"] == {
        "t_s": [25.0, 50.0, 75.0], "accuracy": [0.5, 0.8, 0.79], "loss": [0.5] * 3, "model_s": [20.0, 30.0, 60.5],
        "window": [1, 2, 3], "bytes_up": [None] * 3, "bytes_down": [None] * 3, "bytes_client_down": [None] * 3,
    }  # fmt: skip
    assert report["curves"]["fedavg"]["accuracy"] == [0.85, None, 0.9]
    assert report["host"]["updates_per_s"] == 0.05 and report["host"]["s_per_window"] == 25.0


def test_each_clients_part_adds_up_as_by_hand():
    fast, slow = report_of(small_run(), 2)["clients"]
    assert (fast["updates"], slow["updates"]) == (3, 2)
    assert (fast["staleness_mean"], fast["staleness_max"]) == (1 / 3, 1)
    assert (slow["staleness_mean"], slow["staleness_max"]) == (1.0, 2)
    assert (fast["round_s_mean"], slow["round_s_mean"]) == (8.0, 15.5)
    assert (fast["waiting_s"], slow["waiting_s"]) == (15.5, 1.25)
    assert (fast["bytes_up"], slow["bytes_up"]) == (40, 20)
    assert (fast["bytes_down"], slow["bytes_down"]) == (40, 20)
    assert (fast["triggers"], slow["triggers"]) == (1, 2)
    assert (fast["accuracy"], slow["accuracy"]) == (0.95, 0.7)
    assert fast["densities"] == {"window": [0], "t_s": [0.0], "percent": [100]}
    assert slow["densities"] == {"window": [0, 1, 3], "t_s": [0.0, 20.0, 60.5], "percent": [100, 8, 100]}
    assert (fast["lowest_density"], slow["lowest_density"]) == (1.0, 0.08)
    assert (fast["recovered_s"], slow["recovered_s"]) == (None, 60.5)


def test_time_to_accuracy_is_the_first_grid_second_at_or_above():
    report = report_of(small_run(), 2, thresholds=(0.8, 0.9, 0.805))
    assert report["time_to_accuracy"] == {"0.8": 50.0, "0.9": None, "0.805": None}
    assert report["time_to_accuracy_curves"]["fedavg"] == {"0.8": 25.0, "0.9": 75.0, "0.805": 25.0}


def test_what_the_headline_model_chooses():
    report = report_of(small_run(), 2, headline="fedavg")
    assert report["final"]["accuracy"] == 0.91 and report["time_to_accuracy"]["0.9"] == 75.0
    assert report["worst_client"] == {"client": 0, "accuracy": 0.6}
    assert [entry["accuracy"] for entry in report["clients"]] == [0.6, None]
    with pytest.raises(ValueError, match="headline 'best'"):
        report_of(small_run(), 2, headline="best")


# --- metrics other than accuracy ---


def renamed(name):
    """`small_run` with the values of a metric beside each accuracy: 100 (1 - accuracy), to the last digit."""
    for record in small_run():
        scored = {key: dict(record[key]) for key in ("mask", "fedavg") if key in record}
        for one in scored.values():
            one[name] = None if one["accuracy"] is None else round(100 * (1 - one["accuracy"]), 6)
        yield {**record, **scored}


def test_a_report_of_perplexity_adds_up_as_by_hand(validator):
    report = report_of(renamed("perplexity"), 2, metric=PERPLEXITY, thresholds=(50.0, 20.0, 9.0, 2.5))
    validator.validate(report)
    assert report["metric"] == {"name": "perplexity", "higher_is_better": False, "share": False}
    final = report["final"]
    assert (final["metric"], final["perplexity"], final["accuracy"], final["loss"]) == (10.0, 10.0, 0.9, 0.1)
    assert (final["mask"]["perplexity"], final["fedavg"]["perplexity"]) == (10.0, 9.0)
    assert report["curves"]["mask"]["perplexity"] == [50.0, 20.0, 21.0]
    assert report["curves"]["mask"]["accuracy"] == [0.5, 0.8, 0.79]
    assert report["curves"]["fedavg"]["perplexity"] == [15.0, None, 10.0]
    # at the level or below it
    assert report["time_to_perplexity"] == {"50": 25.0, "20": 50.0, "9": None, "2.5": None}
    assert report["time_to_perplexity_curves"]["fedavg"] == {"50": 25.0, "20": 25.0, "9": None, "2.5": None}
    assert not {"time_to_accuracy", "time_to_accuracy_curves"} & report.keys()


def test_a_report_of_accuracy_keeps_what_version_1_had(validator):
    """Whatever reads version 1 finds each key with its value; only the metric's own keys are new."""
    report = report_of(small_run(), 2, metric=ACCURACY)
    assert report == report_of(small_run(), 2)
    old = copy.deepcopy(report)
    assert old.pop("metric") == {"name": "accuracy", "higher_is_better": True, "share": True}
    assert old["final"].pop("metric") == old["final"]["accuracy"] == 0.9
    validator.validate(old | {"schema_version": 1})
    assert present_version(old | {"schema_version": 1}) == report


def test_a_metric_of_the_users_stands_under_its_own_name(validator):
    bleu = Metric("bleu", lambda scores: 0.0, share=False)
    report = report_of(renamed("bleu"), 2, metric=bleu, thresholds=(30.0, 15.0))
    validator.validate(report)
    assert report["curves"]["mask"]["bleu"] == [50.0, 20.0, 21.0] and report["final"]["metric"] == 10.0
    assert report["time_to_bleu"] == {"30": 25.0, "15": 25.0}  # the first value is above both, and higher is better
    other = report_of(renamed("bleu"), 2, metric=bleu, thresholds=(30.0,), compare={"fedavg": report})
    validator.validate(other)
    assert other["compare"]["fedavg"]["final_bleu"] == 10.0


def test_perplexities_are_compared_at_the_last_common_second(validator):
    changes = {"metric": PERPLEXITY, "thresholds": (20.0,)}
    other = report_of(renamed("perplexity"), 2, headline="fedavg", **changes)
    records = [record for record in renamed("perplexity") if record.get("t_s") not in (50.0, 75.0)]
    report = report_of(records, 2, compare={"fedavg": other}, **changes)
    validator.validate(report)
    entry = report["compare"]["fedavg"]
    assert (entry["t_s"], entry["own_perplexity"], entry["perplexity"], entry["final_perplexity"]) == (25, 50, 15, 9)
    assert entry["curve"] == {"t_s": [25.0, 50.0, 75.0], "perplexity": [15.0, None, 10.0]}
    assert entry["time_to_perplexity"] == {"20": 25.0} and "accuracy" not in entry
    with pytest.raises(ValueError, match="fedavg: its metric is .*accuracy"):
        report_of(records, 2, compare={"fedavg": report_of(small_run(), 2)}, **changes)


def test_a_run_without_labels_has_no_worst_client(validator):
    report = report_of(of_language_model(simulated_run(windows=40)), 10, metric=PERPLEXITY, thresholds=())
    validator.validate(report)
    assert report["worst_client"] is None and report["per_class"] == [] and report["time_to_perplexity"] == {}
    assert {entry["accuracy"] for entry in report["clients"]} == {None}


@pytest.mark.parametrize("version", [0, 3, "2", None, [2]])
def test_a_report_of_a_later_version_is_refused(version, tmp_path):
    (tmp_path / "report.json").write_text(json.dumps({**report_of(small_run(), 2), "schema_version": version}))
    with pytest.raises(UserError, match=r"report.json: has schema_version=.*; this version of prfl_jax reads 1 to 2"):
        read_report(tmp_path / "report.json")


def intervals(density_pct):
    for number, percent in enumerate(density_pct, start=1):
        yield {
            "kind": "interval", "window": number, "t_s": 10.0 * number, "percents": [percent], "triggered": [False],
            "stop": False,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("density_pct", "recovered_s", "lowest"),
    [
        ([100, 100], None, 1.0),
        ([100, 40, 60], None, 0.4),
        ([40, 60, 100, 100], 30.0, 0.4),
        ([40, 100, 50, 100, 100], 40.0, 0.4),  # back for good at 40 s
        ([40, 100, 20], None, 0.2),  # back once, but not at the end
    ],
)
def test_recovered_means_back_at_1_until_the_end(density_pct, recovered_s, lowest):
    (client,) = report_of(intervals(density_pct), 1)["clients"]
    assert client["recovered_s"] == recovered_s and client["lowest_density"] == lowest


def test_bytes_per_client_are_null_where_no_record_tells(validator):
    def without():
        for record in small_run():
            yield {key: value for key, value in record.items() if not key.startswith("client_bytes")}

    report = report_of(without(), 2)
    validator.validate(report)
    assert [entry["bytes_up"] for entry in report["clients"]] == [None, None]


def test_a_run_that_ended_at_once_still_gives_a_report(validator):
    end = {"kind": "end", "how": "not_finite", "detail": "training loss", "client": 3, "window": 1}
    report = report_of([end], 10)
    validator.validate(report)
    assert report["ended"]["client"] == 3 and report["final"]["accuracy"] is None
    assert report["host"]["s_per_window"] is None and report["delta_saved"]["fraction"] is None
    unfinished = report_of(small_run_without_end(), 2)
    validator.validate(unfinished)
    assert unfinished["ended"] == {
        "how": "interrupted", "detail": "no end was recorded", "client": None, "window": 4,
    }  # fmt: skip


def small_run_without_end():
    return (record for record in small_run() if record["kind"] not in ("final", "end"))


def test_a_kind_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="'windows'"):
        report_of([{"kind": "windows", "window": 1}], 2)


def test_equal_runs_differ_only_in_what_depends_on_the_host():
    first = report_of(simulated_run(windows=60), 10)
    other = {"compile_s": 99.0, "steady_s": 1.0, "total_s": 100.0}
    second = report_of(
        simulated_run(windows=60), 10, host=other, commit=None, device="gpu", versions={}, peak_memory_mb=None
    )
    assert first != second
    assert json.dumps(comparable(first)) == json.dumps(comparable(second))
    assert comparable(first) != comparable(report_of(simulated_run(windows=60, seed=1), 10))


def test_records_through_the_file_give_the_same_report(tmp_path):
    with MetricsWriter(tmp_path / "metrics.jsonl") as writer:
        for record in simulated_run(windows=60):
            writer.write(record)
    assert report_of(read_metrics(tmp_path / "metrics.jsonl"), 10) == report_of(simulated_run(windows=60), 10)


def test_strategies_are_compared_at_the_last_common_second(validator):
    other = report_of(small_run_without_end(), 2, headline="fedavg")
    records = [record for record in small_run() if record.get("t_s") != 75.0]
    report = report_of(records, 2, compare={"fedavg": other})
    validator.validate(report)
    entry = report["compare"]["fedavg"]
    assert (entry["t_s"], entry["own_accuracy"], entry["accuracy"]) == (50.0, 0.8, None)
    entry = report_of(small_run(), 2, compare={"fedavg": other})["compare"]["fedavg"]
    assert (entry["t_s"], entry["own_accuracy"], entry["accuracy"]) == (75.0, 0.79, 0.9)
    assert entry["time_to_accuracy"] == {"0.8": 25.0, "0.9": 75.0}
    nothing = report_of([], 2, compare={"fedavg": other})
    validator.validate(nothing)
    assert nothing["compare"]["fedavg"]["t_s"] is None


def drop(*path):
    def change(report):
        for key in path[:-1]:
            report = report[key]
        del report[path[-1]]

    return change


def put(value, *path):
    def change(report):
        for key in path[:-1]:
            report = report[key]
        report[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        drop("final", "accuracy"), drop("bytes_down"), drop("host", "steady_s"), drop("clients", 0, "updates"),
        drop("time_to_accuracy"), drop("metric"), put(2.0, "metric", "share"), put({"20": 1.0}, "time_to_perplexity"),
        drop("curves", "mask"), drop("ended", "how"), put(3, "schema_version"), put("93 %", "final", "accuracy"),
        put(1.5, "final", "accuracy"), put("lost power", "ended", "how"), put(-1, "bytes_up"), put(1, "extra"),
        put([0], "clients", 0, "densities", "percent"), put("fast", "host", "note"), put(None, "windows"),
    ],
)  # fmt: skip
def test_the_schema_refuses(validator, change):
    report = copy.deepcopy(report_of(small_run(), 2))
    validator.validate(report)
    change(report)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(report)


@pytest.mark.parametrize(
    "change",
    [
        drop("metric"), drop("metric", "share"), drop("final", "metric"), drop("final", "perplexity"),
        drop("final", "mask", "perplexity"), drop("curves", "fedavg", "perplexity"), drop("time_to_perplexity"),
        drop("time_to_perplexity_curves"), drop("compare", "fedavg", "own_perplexity"),
        drop("compare", "fedavg", "curve", "perplexity"), put("Perplexity", "metric", "name"), put(1, "schema_version"),
        put({"20": 1.0}, "time_to_accuracy"), put(0.5, "final", "perplexity"), put({"20": "1 s"}, "time_to_bleu"),
        put("good", "final", "bleu"), put("good", "curves", "mask", "bleu"), put({"20": 1.0}, "time_to_bleu_curves"),
    ],
)  # fmt: skip
def test_the_schema_refuses_of_another_metric(validator, change):
    changes = {"metric": PERPLEXITY, "thresholds": (20.0,)}
    other = report_of(renamed("perplexity"), 2, **changes)
    report = copy.deepcopy(report_of(renamed("perplexity"), 2, compare={"fedavg": other}, **changes))
    validator.validate(report)
    change(report)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(report)


def test_a_report_returns_from_its_file_as_it_was(tmp_path, validator):
    report = report_of(simulated_run(windows=60), 10)
    write_report(tmp_path / "deep" / "report.json", report)
    read = read_report(tmp_path / "deep" / "report.json")
    assert read == report and list(read) == sorted(report)
    validator.validate(read)
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["report.json"]


def test_a_report_that_json_cannot_hold_leaves_the_old_file(tmp_path):
    write_report(tmp_path / "report.json", {"schema_version": 2})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_report(tmp_path / "report.json", {"schema_version": 2, "loss": float("nan")})
    assert read_report(tmp_path / "report.json") == {"schema_version": 2}


def test_a_file_that_is_no_report_is_refused_in_one_line(tmp_path):
    (tmp_path / "a.json").write_text("[1, 2")
    (tmp_path / "b.json").write_text("[1, 2]")
    for name in ("a.json", "b.json", "c.json"):
        with pytest.raises(UserError, match=name) as error:
            read_report(tmp_path / name)
        assert "\n" not in str(error.value)


def test_the_package_names_what_it_offers():
    import prfl_jax.report as package

    assert dir(package) == sorted(package.__all__)
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match="best_report"):
        _ = package.best_report


def test_importing_the_package_and_building_a_report_stay_cheap():
    code = (
        "import sys, prfl_jax.report as r; r.build_report, r.write_report, r.summary_text, r.Progress;"
        "print([m for m in ('matplotlib', 'jax', 'tqdm', 'jsonschema') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_committed_reports_follow_the_schema():
    found = 0
    for file in (ROOT / "results").rglob("*.json"):
        report = json.loads(file.read_text())
        if "curves" in report:
            jsonschema.Draft202012Validator(load_schema()).validate(report)
            jsonschema.Draft202012Validator(load_schema()).validate(present_version(report, file))
            found += 1
    assert found

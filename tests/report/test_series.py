"""Thinning, and that no run's report grows beyond 1 MB."""

from __future__ import annotations

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_records import report_of, simulated_run

from prfl_jax.report import load_schema, write_report
from prfl_jax.report.build import MAX_BYTES
from prfl_jax.report.plain import compact
from prfl_jax.report.series import Thinned, columns, thin, value_at


@settings(deadline=None, max_examples=200)
@given(count=st.integers(0, 3000), limit=st.integers(2, 70))
def test_thinning_keeps_first_and_last_and_even_steps(count, limit):
    rows = thin(range(count), limit)
    assert len(rows) <= limit + 1
    assert rows == sorted(set(rows))
    if count <= limit:
        assert rows == list(range(count))
    else:
        step = 1
        while len(range(0, count, step)) > limit:  # the finest power of two that fits
            step *= 2
        assert rows == sorted({*range(0, count, step), count - 1})


@settings(deadline=None, max_examples=50)
@given(count=st.integers(1, 300), limit=st.integers(2, 20), looks=st.sets(st.integers(0, 300)))
def test_looking_in_between_changes_nothing(count, limit, looks):
    series = Thinned(limit)
    for row in range(count):
        series.add(row)
        if row in looks:
            assert series.rows() == thin(range(row + 1), limit)
    assert series.rows() == thin(range(count), limit)


def test_a_limit_below_two_is_refused():
    with pytest.raises(ValueError, match="limit 1"):
        Thinned(1)


def test_value_at_is_the_last_point_not_after():
    assert [value_at([1.0, 2.0, 4.0], "abc", t) for t in (0.5, 1.0, 3.9, 4.0, 9.0)] == [None, "a", "b", "c", "c"]


def test_columns():
    assert columns(("a", "b"), [(1, 2), (3, 4)]) == {"a": [1, 3], "b": [2, 4]}
    assert columns(("a",), []) == {"a": []}


def swinging(clients, windows):
    """Densities that change at every window, as the literal rule makes them, and long times."""
    for window in range(1, windows + 1):
        yield {
            "kind": "window", "window": window, "start_s": (window - 1) / 3, "end_s": window / 3, "arrivals": [],
            "staleness": [], "round_s": [], "loss": [], "bytes_up": 10, "bytes_down": 5, "bytes_client_down": 10,
            "waiting_s": [], "percents": [],
        }  # fmt: skip
        yield {
            "kind": "interval", "window": window, "t_s": window / 3, "triggered": [False] * clients, "stop": False,
            "percents": [10 + (window + i) % 90 for i in range(clients)],
        }  # fmt: skip


def curve(points):
    for number in range(1, points + 1):
        scores = {"accuracy": 1 / (1 + 1 / number), "loss": 1 / number}
        yield {
            "kind": "eval", "t_s": number / 3, "window": number, "model_s": number / 3, "mask": scores,
            "fedavg": scores,
        }  # fmt: skip


CASES = {
    "20,000 windows": (10, lambda: simulated_run(clients=10, windows=20_000)),
    "100,000 points": (10, lambda: curve(100_000)),
    "1,000 clients": (1000, lambda: simulated_run(clients=1000, windows=120, interval=10)),
    "1,000 swinging clients": (1000, lambda: swinging(1000, 100)),
    "5,000 clients": (5000, lambda: swinging(5000, 12)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_report_stays_below_1_mb(case, tmp_path):
    clients, records = CASES[case]
    report = report_of(records(), clients)
    write_report(tmp_path / "report.json", report)
    assert (tmp_path / "report.json").stat().st_size < MAX_BYTES
    jsonschema.Draft202012Validator(load_schema()).validate(report)
    assert report["clients"][0]["client"] == 0 and report["clients"][-1]["client"] == clients - 1
    assert report["clients_total"] == clients


def test_what_is_still_too_long_is_thinned_further():
    report = report_of(swinging(1000, 40), 1000, split_summary={"labels": [[1000] * 200] * 1000})
    assert report["partition"]["labels"]["thinned_from"] == 1000
    assert len(compact(report)) < MAX_BYTES
    assert len(report["clients"]) < 1000 and report["clients"][-1]["client"] == 999


def test_thinned_curves_keep_ends_and_times_to_accuracy():
    report = report_of(curve(100_000), 10, thresholds=(0.99,))
    times = report["curves"]["mask"]["t_s"]
    assert (times[0], times[-1]) == (1 / 3, 100_000 / 3) and len(times) <= 1001
    assert report["time_to_accuracy"] == {"0.99": 33.0}


def test_long_lists_of_settings_say_that_they_are_thinned():
    for speeds in (tuple(range(5000)), np.arange(5000)):
        report = report_of([], 2, config={"strategy": "prfl", "speeds": speeds})
        assert report["config"]["speeds"]["thinned_from"] == 5000
        assert report["config"]["speeds"]["values"][-1] == 4999

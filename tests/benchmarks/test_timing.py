"""Runs in turn, medians, ratios, verdicts, the table."""

import itertools

import pytest

from prfl_jax.benchmarks import timing
from prfl_jax.benchmarks.timing import Row, Timed, alternate, table


def test_tasks_run_in_turn_and_the_first_turn_does_not_count():
    order = []

    def task(name, start):
        seconds = itertools.count(start)

        def run():
            order.append(name)
            return float(next(seconds))

        return run

    runs = alternate({"a": task("a", 10), "b": task("b", 20)}, 3, 0.0)
    assert runs == {"a": [11.0, 12.0, 13.0], "b": [21.0, 22.0, 23.0]}
    assert "".join(order) == "abbaabba"


@pytest.mark.parametrize("least_s,calls", [(0.0, 1), (1.0, 5), (100.0, 50)])
def test_timed_calls_until_a_run_is_long_enough(monkeypatch, least_s, calls):
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    seconds = iter([7.0] + [0.25] * 200)

    def call():
        clock[0] += next(seconds)

    timed = Timed(call, least_s)
    assert timed.first_s == 7.0
    before = clock[0]
    assert timed() == pytest.approx(0.25)
    assert (timed.calls, clock[0] - before) == (max(1, min(calls, 50)) if least_s != 1.0 else 4, timed.calls * 0.25)
    assert timed.compile_s([0.25, 0.5, 0.25]) == 6.75


@pytest.mark.parametrize(
    "row,ratio,ok",
    [
        (Row("k", [3.0, 1.0, 2.0], reference="r", reference_runs=[4.0, 4.0, 1.0], bound=0.5), 0.5, True),
        (Row("k", [3.0, 1.0, 2.1], reference="r", reference_runs=[4.0, 4.0, 1.0], bound=0.5), 0.525, False),
        (Row("k", [0.4, 0.6, 0.5], bound=0.5, bound_on="median"), None, True),
        (Row("k", [0.4, 0.6, 0.51], bound=0.5, bound_on="median"), None, False),
        (Row("k", [1.0], reference="r", reference_runs=[], bound=1.0, missing="gone"), None, None),
        (Row("k", [9.0], reference="r", reference_runs=[1.0], bound=1.0, judged=False), 9.0, None),
        (Row("k", [9.0], reference="r", reference_runs=[1.0]), 9.0, None),
    ],
)
def test_ratio_and_verdict(row, ratio, ok):
    assert row.ratio == (None if ratio is None else pytest.approx(ratio))
    assert row.ok is ok
    written = row.to_json()
    assert (written["kernel"], written["unit"], written["ok"]) == ("k", "s", ok)
    assert (written["min"], written["max"], written["runs"]) == (min(row.runs), max(row.runs), list(row.runs))
    assert written["bound_on"] == (row.bound_on if row.bound is not None else None)
    assert (written["reference"] is None) == (row.reference is None)


def test_table_names_what_is_missed_and_what_is_missing():
    text = table(
        [
            Row("fast", [0.002], reference="r", reference_runs=[0.004], bound=1.0),
            Row("slow", [0.5], 1.25, reference="r", reference_runs=[0.25], bound=1.0),
            Row("late", [0.75], bound=0.5, bound_on="median"),
            Row("alone", [0.5], reference="r", bound=1.0, missing="no such thing"),
            Row("other", [0.5], reference="r", bound=1.0, missing="no such thing"),
        ]
    )
    lines = {line.split()[0]: line.split() for line in text.splitlines()}
    assert lines["fast"][-1] == "ok" and "0.50" in lines["fast"] and "2.00" in lines["fast"]
    assert lines["slow"][-1] == "MISSED" and "1.2" in lines["slow"] and "2.00" in lines["slow"]
    assert lines["late"][-1] == "MISSED" and lines["late"][-4:-1] == ["<=", "0.5", "s"]
    assert "not judged" in text.splitlines()[4]
    assert text.count("no comparison: no such thing") == 1

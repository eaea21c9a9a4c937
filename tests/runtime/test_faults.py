"""Runs with every fault: what arrives is trained and counts, what fails does not, and a run goes on exactly."""

from __future__ import annotations

import atexit
import json
import tempfile
from collections import Counter
from pathlib import Path
from unittest import mock

import jsonschema
import numpy as np
import pytest
import tiny
from marked import slow_except

from prfl_jax.clock import KINDS
from prfl_jax.clock.faults import FaultDraws, Faults
from prfl_jax.engine import planner
from prfl_jax.report import comparable, load_schema, summary_text
from prfl_jax.runtime import simulation
from prfl_jax.runtime.clock_only import run_clock
from prfl_jax.runtime.dry_run import describe
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.system.errors import UserError
from prfl_jax.system.signals import Interrupted

_FOLDER = tempfile.TemporaryDirectory(prefix="prfl_faults_")
atexit.register(_FOLDER.cleanup)


def written(name: str, text: str) -> str:
    path = Path(_FOLDER.name) / name
    path.write_text(text)
    return str(path)


CHANCES = {
    "faults__dropout": 0.1,
    "faults__crash": 0.1,
    "faults__lost_upload": 0.1,
    "faults__repeated_upload": 0.25,
}
ALL_FAULTS = {
    **CHANCES,
    "rounds": 14,
    "faults__join_s": (0.0, 0.0, 0.0, 4.0),
    "faults__leave_s": (1e9, 1e9, 23.0, 1e9),
    "faults__availability": written("there.csv", "client,from,to\n1,0,9\n1,14,1000000\n"),
    "faults__bandwidth": written("speeds.csv", "client,time,up,down\n0,0,5,20\n0,8,1,5\n3,0,2,6\n3,12,4,9\n"),
}
COHORT = {
    **CHANCES,
    "clients__number": 10,
    "clients__up_mb_s": (5.0, 4.0, 1.5, 1.0, 3.0),
    "clients__down_mb_s": (20.0, 16.0, 6.0, 4.0, 12.0),
    "window__cohort": 3,
    "faults__leave_s": (1e9, 1e9, 25.0, 30.0, 8.0),
    "faults__join_s": (0.0, 6.0, 0.0, 0.0, 0.0),
    "rounds": 12,
}
# FedMP, section V-A: workers that are late are cut off, workers join and leave
DEADLINE_R2SP = {
    **ALL_FAULTS,
    "window__close": "deadline",
    "window__deadline_share": 0.5,
    "window__first_waits_for_all": False,
    "aggregation__name": "r2sp",
    "submodel__importance": "weight",
}
RUNS = {
    "prfl": ("prfl", ALL_FAULTS),
    "fedavg": ("fedavg", ALL_FAULTS),
    "fedbuff": ("fedbuff", ALL_FAULTS),
    "fedasync": ("fedasync", ALL_FAULTS),
    "heterofl": ("heterofl", ALL_FAULTS),
    "deadline": ("fedavg", {**ALL_FAULTS, "window__close": "deadline", "window__deadline_share": 0.5}),
    "deadline_r2sp": ("prfl_norecover", DEADLINE_R2SP),
    "cohort": ("fedavg", COHORT),
    "cohort_fedbuff": ("fedbuff", COHORT),
}


def run(name):
    method, changes = RUNS[name]
    return tiny.run(method, **changes)


@pytest.mark.parametrize("name", slow_except(RUNS, "prfl", "deadline", "cohort"))
def test_every_dispatch_arrives_fails_or_is_in_flight(name):
    ran = run(name)
    jsonschema.Draft202012Validator(load_schema()).validate(ran.report)
    flying, up, counts, under_way = Counter(), Counter(), Counter(), {}
    for window in ran.of("window"):
        assert len(window["arrivals"]) == len(window["loss"]) and all(np.isfinite(window["loss"]))
        failures, repeats = window.get("failures", []), window.get("repeats", [])
        assert failures != [] or "failures" not in window
        flying.update(client for client, _ in window["client_bytes_down"])
        under_way |= dict(window["client_bytes_down"])
        flying.subtract([*window["arrivals"], *(f["client"] for f in failures)])
        for client, count in zip(window["arrivals"], window["client_bytes_up"], strict=True):
            up[client] += count
        for one in (*failures, *repeats):
            up[one["client"]] += one["bytes_up"]
            assert window["start_s"] <= one["ended_s"] <= window["end_s"]
            counts[one.get("kind", "repeated_upload"), one["client"]] += 1
    assert set(flying.values()) <= {0, 1}
    assert sum(counts.values()) > 3
    report = ran.report
    by_kind = Counter()
    for (kind, _), count in counts.items():
        by_kind[kind] += count
    assert report["faults"] == {kind: by_kind[kind] for kind in KINDS}
    if name.startswith("deadline"):
        assert by_kind["late"]
    if name == "deadline_r2sp":  # sub-models, and a client that joined and one that left
        assert by_kind["left"] and min(p for w in ran.of("window") for p in w["percents"]) < 60
        assert any(3 in window["arrivals"] for window in ran.of("window"))
    for entry in report["clients"]:
        own = {kind: counts[kind, entry["client"]] for kind in KINDS if counts[kind, entry["client"]]}
        assert entry.get("faults", {}) == own
        assert entry["bytes_up"] == up[entry["client"]]
    in_flight = sum(under_way[client] for client, count in flying.items() if count)
    assert 0 <= sum(entry["bytes_down"] for entry in report["clients"]) - report["bytes_client_down"] <= in_flight
    failed = sum(by_kind[kind] for kind in KINDS if kind != "repeated_upload")
    assert f"{failed} rounds failed: " in summary_text(report)


GO_ON = ["prfl", "fedavg", "fedbuff", "deadline", "deadline_r2sp", "cohort", "cohort_fedbuff"]


@pytest.mark.parametrize("name", slow_except(GO_ON, "prfl"))
def test_a_run_goes_on_exactly(name, tmp_path):
    method, changes = RUNS[name]
    experiment = Experiment(tiny.config(method, **{**changes, "engine__chunk_windows": 2}))
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        for checks in (5, 4, 6):
            with pytest.raises(Interrupted):
                experiment.run(tmp_path / "run", guard=tiny.StopAt(checks), progress=False)
        report = experiment.run(tmp_path / "run", progress=False).report
    whole = run(name).report
    same = ("faults", "clients", "curves", "bytes_up", "bytes_down", "bytes_client_down", "final", "simulated_s")
    assert {key: comparable(report)[key] for key in same} == {key: comparable(whole)[key] for key in same}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prfl", "fedbuff", "fedasync", "cohort_fedbuff"])
def test_training_ahead_trains_nothing_that_has_failed(name):
    method, changes = RUNS[name]
    steady = {"submodel__importance": "weight"} if method == "prfl" else {}
    ahead, on_arrival = (
        tiny.run(method, **{**changes, **steady, "engine__train": train}) for train in ("pending", "arrival")
    )
    tiny.close(ahead.params, on_arrival.params, 1e-5)
    made = tiny.simulation(method, **{**changes, "engine__train": "pending"}).new_planner()
    ready: dict[int, int] = {}
    for row in (row for _ in range(14) for row in made.take().rows):
        ready |= {slot: row.count[slot] for slot in row.train[: row.train_count].tolist()}
        for slot in row.arrive[: row.arrive_count].tolist():
            assert ready.pop(slot) == row.count[slot]  # of this very dispatch


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cohort", "cohort_fedbuff"])
def test_slots_of_a_cohort_that_are_handed_on_change_nothing(name):
    method, changes = RUNS[name]
    slots = planner.Slots
    with (
        mock.patch.object(simulation, "slots", lambda config: config.clients.number),
        mock.patch("prfl_jax.engine.method.slots", lambda config: config.clients.number),
        mock.patch.object(planner, "Slots", lambda clients, cohort: slots(clients, 0)),
    ):
        kept = tiny.run_experiment(Experiment(tiny.config(method, **changes)))
    tiny.same(run(name).params, kept.params)


@pytest.mark.slow
def test_methods_meet_the_same_faults():
    drawn = FaultDraws(0, Faults(0.1, 0.1, 0.1, 0.25))
    seen = {}
    for name in ("prfl", "fedavg", "fedbuff"):
        seen[name] = set()
        for window in run(name).of("window"):
            for one in window.get("failures", []):
                if one["kind"] not in ("left", "late"):
                    assert drawn.of(one["client"], one["index"])[0] == one["kind"]
                    seen[name].add((one["client"], one["index"], one["kind"]))
    assert seen["prfl"] & seen["fedavg"] and seen["prfl"] & seen["fedbuff"]


def test_a_run_is_not_gone_on_with_on_another_trace(tmp_path):
    method, changes = RUNS["fedavg"]
    path = tmp_path / "speeds.csv"
    path.write_text("client,time,up,down\n0,0,5,20\n")
    config = tiny.config(method, **{**changes, "faults__bandwidth": str(path)})
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        with pytest.raises(Interrupted):
            Experiment(config).run(tmp_path / "run", guard=tiny.StopAt(5), progress=False)
        path.write_text("client,time,up,down\n0,0,5,21\n")
        with pytest.raises(UserError, match="or a file that the config names, are not those"):
            Experiment(config).run(tmp_path / "run", progress=False)
        path.write_text("client,time\n")
        with pytest.raises(UserError, match="speeds.csv, line 1"):
            Experiment(config)


def test_a_run_that_waits_for_nobody_says_so(tmp_path):
    config = tiny.config("fedavg", faults__leave_s=(20.0,))
    with pytest.raises(UserError, match="config.faults.leave_s.*simulated s"):
        Experiment(config).run(tmp_path / "run", progress=False)


@pytest.mark.slow
def test_a_run_that_ends_before_that_does_not_mind(tmp_path):
    """All leave for good at 20 s: the last window that can close is the last but for what the horizon asks for."""
    leave = {"faults__leave_s": (20.0,), "rounds": 40}
    ran = tiny.run("fedavg", horizon_s=60.0, **leave)
    assert ran.report["ended"]["how"] == "horizon" and 0 < ran.report["windows"] < 8
    assert ran.report["curves"]["mask"]["t_s"][-1] == 54.0 and ran.report["simulated_s"] == 20.0
    fewer = tiny.run("fedavg", **{**leave, "rounds": ran.report["windows"]})
    assert fewer.report["ended"]["how"] == "rounds"
    tiny.same(fewer.params, ran.params)
    said = describe(tiny.config("fedavg", horizon_s=60.0, **leave))
    assert f"{ran.report['windows']} windows" in said or f"  {ran.report['windows']}, about 20 " in said


@pytest.mark.slow
def test_a_run_that_is_gone_on_with_ends_where_all_have_left_too(tmp_path):
    """A chunk is planned up to the window that never closes: a checkpoint after it has a clock that tried that one."""
    leave = {"faults__leave_s": (12.0,), "rounds": 200, "seed": 0}
    experiment = Experiment(tiny.config("fedasync", horizon_s=40.0, **leave))
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        with pytest.raises(Interrupted):
            experiment.run(tmp_path / "run", guard=tiny.StopAt(11), progress=False)  # of twelve
        report = experiment.run(tmp_path / "run", progress=False).report
    whole = tiny.run("fedasync", horizon_s=40.0, **leave).report
    assert (whole["windows"], whole["bytes_up"]) == (10, 80_000_000)
    assert comparable(report) == comparable(whole)


def test_without_faults_nothing_is_said_of_them():
    ran = tiny.run("prfl")
    assert "faults" not in ran.report and not any("faults" in entry for entry in ran.report["clients"])
    assert not any("failures" in window or "repeats" in window for window in ran.of("window"))
    assert "failed" not in summary_text(ran.report) and "faults" not in describe(tiny.config("prfl"))


def test_dry_run_and_clock_alone_count_them():
    config = tiny.config("fedavg", **ALL_FAULTS)
    said = describe(config)
    assert "faults" in said and " dropout," in said and " repeated_upload" in said
    ran = run("fedavg")
    alone = run_clock(config, 14, ran.experiment.simulation.method.size)
    assert {kind: sum(by_client) for kind, by_client in alone["faults"].items()} == ran.report["faults"]
    assert json.dumps(alone["faults"])

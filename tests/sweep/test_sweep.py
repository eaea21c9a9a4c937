"""Sweeps: exactly the trials that were asked for, whoever makes them and whoever dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from unittest import mock

import optuna
import pytest
import tiny
import tokens
from paths import HELPERS, ROOT

from prfl_jax.report import read_metrics
from prfl_jax.sweep import Sweep
from prfl_jax.sweep import run as sweep_run
from prfl_jax.sweep.run import run_sweep
from prfl_jax.sweep.settings import WORKER, Objective
from prfl_jax.sweep.space import Space
from prfl_jax.system.errors import UserError
from prfl_jax.tasks import ACCURACY, PERPLEXITY, Metric

GRID = """
def get_space():
    return {"local.lr": [0.1, 0.3], "local.steps": [1, 2]}
"""


ACCURATE = Objective(ACCURACY)


@pytest.fixture
def space_file(tmp_path):
    def write(text=GRID):
        path = tmp_path / f"space_{len(list(tmp_path.glob('space_*')))}.py"
        path.write_text(text)
        return str(path)

    return write


def sweep(space, out, **more):
    return Sweep(space=space, out=out, **{"trials": None, "sampler": "grid", **more})


def outcome(out):
    return json.loads((out / "sweep.json").read_text())


@pytest.fixture(autouse=True)
def no_figures():
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        yield


@pytest.mark.slow
def test_a_grid_is_made_whole_and_a_second_call_makes_nothing(space_file, tmp_path, capsys):
    out = tmp_path / "sweep"
    base = tiny.config("fedavg", rounds=3)
    assert run_sweep(base, sweep(space_file(), out, trials=3)) == 0
    found = outcome(out)
    assert [entry["values"] for entry in found["trials"]] == [
        {"local.lr": 0.1, "local.steps": 1}, {"local.lr": 0.1, "local.steps": 2}, {"local.lr": 0.3, "local.steps": 1},
    ]  # fmt: skip
    for entry in found["trials"]:
        report = json.loads((out / entry["folder"] / "report.json").read_text())
        assert entry["value"] == report["final"]["accuracy"] and entry["state"] == "complete" and entry["attempts"] == 1
        assert report["config"]["local"]["lr"] == entry["values"]["local.lr"]
        assert report["config"]["compare"] == []
        records = [r for r in read_metrics(out / entry["folder"] / "metrics.jsonl") if r["kind"] == "eval"]
        assert entry["evaluations"] == [[round(r["t_s"]), r["mask"]["accuracy"]] for r in records]
    best = max(found["trials"], key=lambda entry: entry["value"])
    assert found["best"][0] == best["trial"]
    said = capsys.readouterr().out
    assert f"| {best['trial']} | {best['value']:.5g} | server model |" in said and "| accuracy | of the |" in said
    assert {entry["model"] for entry in found["trials"]} == {"server model"}
    reports = {path: path.stat().st_mtime_ns for path in out.glob("*/report.json")}
    assert run_sweep(base, sweep(space_file(), out)) == 0  # the fourth
    assert len(outcome(out)["trials"]) == 4
    assert {path: path.stat().st_mtime_ns for path in reports} == reports
    for wrong, flag in (
        (sweep(space_file(), out, trials=3), "--trials=3"),
        (sweep(space_file(), out, trials=5), "--trials=5"),
        (sweep(space_file(), out, objective="time_to:0.5"), "--objective"),
        (sweep(space_file("def get_space(): return {'local.lr': [0.1]}"), out), "--space"),
    ):
        with pytest.raises(UserError, match=flag):
            run_sweep(base, wrong)
    with pytest.raises(UserError, match="--config: --out=.* holds a sweep with another one"):
        run_sweep(tiny.config("fedavg", rounds=4), sweep(space_file(), out))


KILLED = """
import tiny

def get_config():
    return tiny.config("fedavg", rounds=400, checkpoint__every_s=0.05, engine__chunk_windows=1, eval_every_s=1000.0)
"""


@pytest.mark.processes
def test_a_killed_workers_trial_is_taken_up_by_another(space_file, tmp_path):
    """Two workers on one storage, one killed with SIGKILL in the middle of a trial."""
    config, out = tmp_path / "config.py", tmp_path / "sweep"
    config.write_text(KILLED)
    command = [
        sys.executable, "scripts/sweep.py", f"--config={config}", f"--space={space_file()}", "--sampler=grid",
        f"--out={out}", "--heartbeat_s=1",
    ]  # fmt: skip
    paths = os.pathsep.join([str(ROOT), str(HELPERS)])
    workers = []
    for number in range(2):
        log = open(tmp_path / f"{number}.log", "w")  # noqa: SIM115 - closed with the process
        workers.append(
            subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, stderr=log, stdout=log)
        )
        if not number:  # the first one has begun a trial, and has saved something of it
            until = time.monotonic() + 240
            while not list(out.glob("trial_00000/checkpoints/[2-9]")):
                assert workers[0].poll() is None and time.monotonic() < until
                time.sleep(0.05)
    workers[0].send_signal(signal.SIGKILL)
    assert workers[0].wait() == -signal.SIGKILL
    assert workers[1].wait(timeout=400) == 0, (tmp_path / "1.log").read_text()[-2000:]
    found = outcome(out)
    assert [entry["state"] for entry in found["trials"]] == ["complete"] * 4
    assert len({tuple(entry["values"].items()) for entry in found["trials"]}) == 4
    assert [entry["attempts"] for entry in found["trials"]] == [2, 1, 1, 1]
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{out / 'sweep.db'}")
    states = [trial.state.name for trial in study.get_trials()]
    assert sorted(states) == ["COMPLETE"] * 4 + ["FAIL"]  # one completed trial for each set of values
    said = (tmp_path / "1.log").read_text()
    assert "(trial 0 again)" in said and "resumed after window" in said.split("(trial 0 again)")[1]
    for entry in found["trials"]:
        windows = [r["window"] for r in read_metrics(out / entry["folder"] / "metrics.jsonl") if r["kind"] == "window"]
        assert windows == list(range(1, 401))


@pytest.mark.slow
def test_hopeless_trials_are_given_up_and_bad_ones_told(space_file, tmp_path, capsys):
    space = """
def get_space():
    return {"local.lr": [0.3, 1e-8, 1e-7, 1e-6, 1e30], "data.partition": ["iid", "writer"]}
"""
    out = tmp_path / "sweep"
    base = tiny.config("fedavg", rounds=30, horizon_s=160.0)
    assert run_sweep(base, sweep(space_file(space), out, pruner="asha")) == 1  # the embedded images have no writers
    found = outcome(out)
    states = {(e["values"]["local.lr"], e["values"]["data.partition"]): e["state"] for e in found["trials"]}
    assert states.pop((0.3, "iid")) == "complete"
    assert {state for (_, partition), state in states.items() if partition == "writer"} == {"fail"}
    given_up = [e for e in found["trials"] if e["state"] == "pruned"]
    assert len(given_up) == 4 and all(e["value"] is None for e in given_up)
    last = max(step for e in found["trials"] if e["state"] == "complete" for step, _ in e["evaluations"])
    assert all(e["evaluations"][-1][0] < last for e in given_up)
    failed = [e for e in found["trials"] if e["state"] == "fail"]
    assert all("data.partition" in e["error"] for e in failed)
    assert f"trial {failed[0]['trial']} failed: config.data.partition" in capsys.readouterr().out


@pytest.mark.slow
def test_time_to_a_level(space_file, tmp_path):
    out, space = tmp_path / "sweep", "def get_space(): return {'local.lr': [0.3, 1e-6]}"
    base = tiny.config("fedavg", rounds=12)
    assert run_sweep(base, sweep(space_file(space), out, objective="time_to:0.15")) == 0
    fast, never = outcome(out)["trials"]
    report = json.loads((out / fast["folder"] / "report.json").read_text())
    assert fast["value"] == report["time_to_accuracy"]["0.15"] and 0.5 in report["config"]["eval"]["thresholds"]
    assert never["value"] is None and never["state"] == "complete"
    assert outcome(out)["best"] == [0] and outcome(out)["direction"] == "minimize"


# --- other metrics ---


@pytest.mark.slow
@pytest.mark.parametrize("objective", [None, "perplexity", "time_to:10"])
def test_a_language_model_is_judged_by_perplexity(space_file, tmp_path, objective):
    """The lowest perplexity at the end, or the least time to one, is best."""
    out, space = tmp_path / "sweep", "def get_space(): return {'local.lr': [1e-6, 3.0]}"
    base = tiny.config("fedavg", **tokens.SETTINGS, data__name=tokens.write(tmp_path), rounds=10)
    assert run_sweep(base, sweep(space_file(space), out, objective=objective)) == 0
    found = outcome(out)
    assert found["direction"] == "minimize" and found["objective"] == (objective or "perplexity")
    reports = [json.loads((out / entry["folder"] / "report.json").read_text()) for entry in found["trials"]]
    if objective == "time_to:10":
        assert [entry["value"] for entry in found["trials"]] == [r["time_to_perplexity"]["10"] for r in reports]
        assert found["trials"][0]["value"] is None and found["best"][0] == 1
    else:
        ends = [report["final"]["perplexity"] for report in reports]
        assert [entry["value"] for entry in found["trials"]] == ends and ends[0] > ends[1]
        assert found["best"] == [1, 0]
    records = [r for r in read_metrics(out / "trial_00000" / "metrics.jsonl") if r["kind"] == "eval"]
    told = [[round(r["t_s"]), r["mask"]["perplexity"]] for r in records]
    assert found["trials"][0]["evaluations"] == told  # in the metric's own direction


@pytest.mark.slow
def test_asha_gives_up_the_trials_of_high_perplexity(space_file, tmp_path):
    out, space = tmp_path / "sweep", "def get_space(): return {'local.lr': [3.0, 1e-8, 1e-7, 1e-6, 1e-5]}"
    base = tiny.config("fedavg", **tokens.SETTINGS, data__name=tokens.write(tmp_path), rounds=30, horizon_s=160.0)
    assert run_sweep(base, sweep(space_file(space), out, pruner="asha")) == 0
    assert [entry["state"] for entry in outcome(out)["trials"]] == ["complete"] + ["pruned"] * 4


@pytest.mark.parametrize("every_s", [0.01, 0.4, 1.0, 100.0])
def test_asha_compares_evaluations_at_any_distance(tmp_path, every_s):
    from prfl_jax.sweep.study import _pruner
    from prfl_jax.sweep.trial import TrialRunner

    base = tiny.config("fedavg", eval_every_s=every_s, horizon_s=64 * every_s)
    study = optuna.create_study(pruner=_pruner(sweep("", tmp_path, pruner="asha"), base), direction="maximize")
    runner = TrialRunner(base, Space({}, {}), ACCURATE, tmp_path, tiny.StopAt(9), progress=False)

    def evaluations(accuracy):
        """How many a trial of that accuracy has before it is given up."""
        trial = study.ask()
        watch = runner._watch(trial, base)
        try:
            for number in range(65):
                record = {"kind": "eval", "t_s": number * every_s, "mask": {"accuracy": accuracy}}
                watch(record)
                watch(record)  # a retry repeats what is there
        except optuna.TrialPruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, accuracy)
        return len(study.trials[-1].intermediate_values)

    assert evaluations(0.9) == 65
    assert all(evaluations(accuracy) == 5 for accuracy in (0.5, 0.2, 0.1))  # a sixteenth of the horizon


def test_what_a_trial_under_way_is_compared_by():
    """In the direction in which the study compares; a value that is not finite is the worst."""
    least = Objective(PERPLEXITY)
    assert (least.direction, least.midway(90.0), least.midway(None)) == ("minimize", 90.0, float("inf"))
    soonest = Objective(PERPLEXITY, 50.0)
    assert (soonest.direction, soonest.midway(90.0), soonest.midway(float("nan"))) == ("minimize", 90.0, float("inf"))
    assert (ACCURATE.direction, ACCURATE.midway(0.9), ACCURATE.midway(None)) == ("maximize", 0.9, float("-inf"))
    early = Objective(ACCURACY, 0.9)
    assert (early.direction, early.midway(0.75)) == ("minimize", 0.25)
    gain = Objective(Metric("gain", lambda scores: 0.0, share=False), 7.0)
    assert gain.midway(12.0) < gain.midway(5.0)


def test_a_final_value_that_is_not_finite_is_none():
    report = {"final": {"metric": None}, "ended": {"how": "rounds"}, "time_to_perplexity": {"50": None, "200": 9.0}}
    assert Objective(PERPLEXITY).value(report) is None
    assert [Objective(PERPLEXITY, level).value(report) for level in (50.0, 200.0)] == [float("inf"), 9.0]


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ("accuracy", "allowed is perplexity, or time_to:LEVEL with a level in \\(1, inf\\)"),
        ("time_to:0.9", "allowed is perplexity"),
        ("time_to:inf", "allowed is perplexity"),
    ],
)
def test_objectives_that_a_language_model_has_not(objective, words):
    with pytest.raises(UserError, match=f"--objective={objective}: {words}"):
        Objective.of(objective, PERPLEXITY)


def test_a_signal_saves_the_trial_and_plans_it_again(space_file, tmp_path):
    from prfl_jax.sweep import study as study_room
    from prfl_jax.sweep.trial import TrialRunner
    from prfl_jax.system.signals import Interrupted

    out, base = tmp_path / "sweep", tiny.config("fedavg", rounds=6)
    out.mkdir()
    settings = sweep(space_file("def get_space(): return {'local.lr': [0.3]}"), out)
    space = Space.read(settings.space)
    with study_room.quiet():
        study = study_room.open_study(settings, base, space, ACCURATE)
        run = TrialRunner(base, space, ACCURATE, out, tiny.StopAt(8), progress=False)
        with pytest.raises(Interrupted):
            study_room.work(study, run, tiny.StopAt(10**6))
    assert [t.state.name for t in study.get_trials()] == ["FAIL", "WAITING"]
    assert run_sweep(base, settings) == 0
    assert [(e["state"], e["attempts"], e["folder"]) for e in outcome(out)["trials"]] == [
        ("complete", 2, "trial_00000")
    ]


@pytest.mark.slow
def test_a_trial_that_was_taken_and_never_heard_of_is_lost(space_file, tmp_path):
    """Its worker died before the first heartbeat."""
    from prfl_jax.sweep import study as study_room

    out, base = tmp_path / "sweep", tiny.config("fedavg", rounds=2)
    out.mkdir()
    settings = sweep(space_file("def get_space(): return {'local.lr': [0.3]}"), out, heartbeat_s=1)
    with study_room.quiet():
        study = study_room.open_study(settings, base, Space.read(settings.space), ACCURATE)
        study.ask()  # without a heartbeat
    assert [t.state.name for t in study.get_trials()] == ["RUNNING"]
    assert run_sweep(base, settings) == 0
    assert [(e["state"], e["attempts"]) for e in outcome(out)["trials"]] == [("complete", 2)]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_ranges(space_file, tmp_path, sampler):
    space = """
from optuna.distributions import FloatDistribution, IntDistribution
def get_space():
    return {"local.lr": FloatDistribution(0.01, 1.0, log=True), "density.interval": IntDistribution(1, 9, step=2)}
"""
    out, base = tmp_path / "sweep", tiny.config("fedavg", rounds=1, eval_every_s=1e4)
    read = Space.read(space_file(space))
    with mock.patch("prfl_jax.sweep.study.STARTUP", 2):
        assert run_sweep(base, sweep(space_file(space), out, sampler=sampler, trials=3)) == 0
    values = [entry["values"] for entry in outcome(out)["trials"]]
    assert values[:2] == [read.draw(base.seed, 0), read.draw(base.seed, 1)] and values[0] != values[1]
    assert (values[2] == read.draw(base.seed, 2)) == (sampler == "random")
    assert all(0.01 <= v["local.lr"] <= 1 and v["density.interval"] in (1, 3, 5, 7, 9) for v in values)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def get_space(): return {'local.lrr': [0.1]}", "local.lr"),
        ("def get_space(): return {'local.lr': [0.1, 'much']}", "local.lr='much': allowed is"),
        ("def get_space(): return {'local.lr': (-1.0, 2.0)}", "local.lr=-1.0: allowed is"),
        ("def get_space(): return {'task.name': ['classification']}", "task.name: allowed is one task for all trials"),
        ("def get_space(): return {'local.lr': []}", "a list of values, or an Optuna"),
        ("def get_space(): return {'local.lr': 0.5}", "a list of values, or an Optuna"),
        ("def get_space(): return {}", "at least one key"),
        ("def get_space(): return [1]", "returns .* allowed is a Python file"),
        ("def space(): return {}", "there is no function get_space"),
        ("import nothing_of_that_name", "line 1"),
    ],
)
def test_a_space_that_is_not_allowed(space_file, tmp_path, text, words):
    with pytest.raises(UserError, match=words) as raised:
        run_sweep(tiny.config("fedavg"), sweep(space_file(text), tmp_path / "sweep"))
    assert str(raised.value).startswith("--space=") and "\n" not in str(raised.value)
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"sampler": "annealing"}, "--sampler=annealing: allowed is grid, random, tpe"),
        ({"pruner": "median"}, "--pruner=median"),
        ({"trials": 0}, "--trials=0"),
        ({"sampler": "tpe"}, "--trials is missing"),
        ({"workers": 0}, "--workers=0"),
        ({"heartbeat_s": 0}, "--heartbeat_s=0"),
        ({"retries": -1}, "--retries=-1"),
        ({"objective": "loss"}, "--objective=loss: allowed is accuracy, or time_to:LEVEL"),
        ({"objective": "time_to:90"}, "--objective=time_to:90"),
        ({"storage": "nothing://here"}, "--storage=nothing://here: cannot be used"),
    ],
)
def test_a_flag_that_is_not_allowed(space_file, tmp_path, flags, words):
    with pytest.raises(UserError, match=words):
        run_sweep(tiny.config("fedavg"), sweep(space_file(), tmp_path / "sweep", **flags))


def test_values_that_are_tuples(space_file):
    space = Space.read(space_file("def get_space(): return {'clients.up_mb_s': [(1.0, 2.0), (3.0,)], 'seed': [1]}"))
    first, second = space.grid()
    assert space.config(tiny.config(), first).clients.up_mb_s == (1.0, 2.0)
    assert space.config(tiny.config(), second).clients.up_mb_s == (3.0,)


def test_a_strategy_brings_its_row(space_file):
    space = Space.read(space_file("def get_space(): return {'window.k': [2], 'strategy': ['fedbuff', 'fedavg']}"))
    config = space.config(tiny.config(), space.grid()[0])
    assert (config.strategy, config.window.close, config.window.k) == ("fedbuff", "k_arrivals", 2)


def test_other_workers_get_the_same_command(tmp_path):
    with (
        mock.patch.object(sweep_run.subprocess, "Popen") as popen,
        mock.patch.object(sys, "argv", ["sweep.py", "--a=1"]),
    ):
        assert len(sweep_run._start_others(sweep("x", tmp_path, workers=3))) == 2
    (first, kind), _ = popen.call_args_list
    assert first[0] == [sys.executable, "sweep.py", "--a=1"] and kind["env"][WORKER] == "1"
    with mock.patch.dict(os.environ, {WORKER: "1"}):
        assert sweep_run._start_others(sweep("x", tmp_path, workers=3)) == ()

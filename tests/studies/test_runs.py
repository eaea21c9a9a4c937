"""Which runs of a study are made, and what PR-FL's tables and figures say about two of them."""

from __future__ import annotations

import dataclasses
import json

import pytest
import tiny
from paths import ROOT
from study_reports import material, rows_of

from prfl_jax.config.canonical import assign, same_run, to_dict
from prfl_jax.config.cli import load_config
from prfl_jax.runtime.dry_run import ASSUMED_FLOP_S, estimate
from prfl_jax.studies import runs
from prfl_jax.studies.columns import Column, Preset
from prfl_jax.studies.prfl import figures, paper, presets, tables
from prfl_jax.studies.prfl.study import STUDY
from prfl_jax.studies.reproduce import render
from prfl_jax.studies.study import Material
from prfl_jax.system.errors import InUse, UserError
from prfl_jax.system.signals import InterruptGuard

SMOKE = presets.smoke()


def tiny_column(**change) -> Column:
    def apply(c):
        for key, value in tiny.SETTINGS.items():
            if key not in ("rounds", "eval.thresholds"):  # the column has its own
                assign(c, key, value)
        c.horizon_s = 150.0
        for key, value in change.items():
            c.density[key] = value

    return Column("tiny", "tiny", apply, (0.15, 0.3), "for a test", ("femnist", "non-iid"), ("prfl", "fedavg"))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Two runs of a small column, and the folder of their reports."""
    out = tmp_path_factory.mktemp("out")
    todo = runs.wanted([tiny_column()], lambda column: column.methods, 1)
    left_out = runs.Runner(out, out / "work", None, InterruptGuard()).run(todo)
    assert not left_out and not list((out / "work").rglob("*.json"))
    return out, todo


@pytest.mark.slow
def test_finished_runs_are_kept_and_deleted_ones_made_again(done, monkeypatch):
    out, todo = done
    made = []
    monkeypatch.setattr(runs.Runner, "_one", lambda self, run: made.append(run.name))
    runner = runs.Runner(out, out / "work", None, InterruptGuard())
    runner.run(todo)
    assert made == []
    file = todo[1].file(out)
    content = file.read_text()
    file.unlink()
    try:
        runner.run(todo)
    finally:
        file.write_text(content)
    assert made == ["tiny/fedavg_seed0"]


@pytest.mark.slow
def test_a_run_of_the_smoke_preset(tmp_path):
    run = runs.Run(SMOKE.columns[1], "prfl", 0)
    assert runs.Runner(tmp_path, tmp_path / "work", None, InterruptGuard()).run([run]) == []
    assert runs.load(run, tmp_path)["ended"]["how"] == "horizon"


def test_another_config_is_another_run(done):
    out, todo = done
    assert runs.load(todo[0], out)["strategy"] == "prfl"
    assert runs.load(runs.Run(tiny_column(patience=7), "prfl", 0), out) is None


def test_reports_without_a_new_key_count_at_its_default():
    config = load_config(ROOT / "configs/quickstart.py")
    saved = json.loads(json.dumps(to_dict(config)))
    assert same_run(saved, config)
    del saved["local"]["prox_mu"]
    assert same_run(saved, config)
    assert not same_run(saved, load_config(ROOT / "configs/quickstart.py", {"local.prox_mu": 0.1}))
    assert not same_run({**saved, "gone": 1}, config)
    saved["seed"] = 5
    assert not same_run(saved, config)


def test_a_budget_starts_no_run_that_would_not_end(done, tmp_path, monkeypatch):
    _, todo = done
    made = []
    monkeypatch.setattr(runs.Runner, "_one", lambda self, run: made.append(run.name))
    left_out = runs.Runner(tmp_path, tmp_path, 1.0, InterruptGuard()).run(todo)
    assert left_out == todo and made == []
    runner = runs.Runner(tmp_path, tmp_path, 1e6, InterruptGuard())
    flop = estimate(todo[0].config()).flop
    assert runner.expected_s(flop) == runs.OVERHEAD_S + flop / (0.5 * ASSUMED_FLOP_S["cpu"])
    assert runner.run(todo) == [] and len(made) == 2
    # a run's speed is that of all its pieces, not of the last one
    done_in = {"host": {"total_s": 115.0}}
    monkeypatch.setattr(runs.Runner, "_one", lambda self, run: done_in)
    runner.run(todo[:1])
    assert runner.expected_s(flop) == pytest.approx(15 + 100)


def test_windows_of_an_interrupted_run_are_counted_once(done, tmp_path):
    _, todo = done
    folder = todo[0].workdir(tmp_path)
    assert runs.share_done(todo[0], tmp_path) == 0.0
    folder.mkdir(parents=True)
    lines = ['{"kind": "window", "end_s": 30.0}', '{"kind": "window", "end_s": 60.0}', '{"kind": "eval", "t_s": 1.0}']
    (folder / "metrics.jsonl").write_text("\n".join(lines) + '\n{"kind": "window", "end_')
    assert runs.share_done(todo[0], tmp_path) == pytest.approx(60 / 150)


def test_a_report_of_another_config_is_set_aside(done, tmp_path, capsys):
    _, todo = done
    file = tmp_path / "prfl_seed0.json"
    for content in ("first", "second"):
        file.write_text(content)
        runs._set_aside(file)
    assert not file.exists() and "is now" in capsys.readouterr().err
    kept = [(tmp_path / f"prfl_seed0.json.other_config_{k}").read_text() for k in (0, 1)]
    assert kept == ["first", "second"]


def test_what_another_process_has_under_way_is_passed_over(done, tmp_path, monkeypatch, capsys):
    _, todo = done
    made = []

    def one(self, run):
        if not made and run is todo[0]:
            made.append("the other process has it")
            raise InUse("--workdir=there: another run is writing there")
        made.append(run.name)

    monkeypatch.setattr(runs.Runner, "_one", one)
    assert runs.Runner(tmp_path, tmp_path, None, InterruptGuard()).run(todo) == []
    assert made == ["the other process has it", "tiny/fedavg_seed0"]
    assert "another process has it under way" in capsys.readouterr().err


def test_what_another_process_ended_meanwhile_is_not_run_again(done, tmp_path, monkeypatch):
    out, todo = done
    build = runs.Runner(tmp_path, tmp_path / "work", None, InterruptGuard())

    class Ended:
        """The other process writes its report while this one makes its experiment ready."""

        def __init__(self, config):
            todo[1].file(tmp_path).parent.mkdir(parents=True)
            todo[1].file(tmp_path).write_text(todo[1].file(out).read_text())

    monkeypatch.setattr("prfl_jax.runtime.experiment.Experiment", Ended)
    assert build._one(todo[1]) is None and not list((tmp_path / "work").rglob("*.json"))
    monkeypatch.setattr("prfl_jax.runtime.experiment.Experiment", None)  # now it is known before that
    assert build._one(todo[1]) is None


def test_tables_say_what_the_reports_say(done):
    out, todo = done
    by_method = {run.method: runs.load(run, out) for run in todo}
    reports = {("tiny", method): [report] for method, report in by_method.items()}
    made = material(out, (tiny_column(),), reports, mark="A TEST")
    tables.table4(made)
    tables.table5(made)
    seen = rows_of(out / "table4.csv")
    assert [(r["method"], r["accuracy"]) for r in seen] == [
        ("PR-FL", "15 %"), ("FedAvg", "15 %"), ("PR-FL", "30 %"), ("FedAvg", "30 %")
    ]  # fmt: skip
    times = {m: [r["time_to_accuracy"][t] for t in ("0.15", "0.3")] for m, r in by_method.items()}
    for row, (method, place) in zip(seen, [("prfl", 0), ("fedavg", 0), ("prfl", 1), ("fedavg", 1)], strict=True):
        own = times[method][place]
        assert row["first reached, s"] == ("-" if own is None else f"{own:,.0f}")
        assert row["paper, s"] == ("-" if (method, place) == ("fedavg", 1) else
                                   f"{paper.TABLE4['femnist', 'non-iid'][(0.80, 0.835)[place]][method]:,}")  # fmt: skip
    fifth = rows_of(out / "table5.csv")
    assert [r["ours, %"] for r in fifth] == [f"{100 * r['final']['accuracy']:.2f}" for r in by_method.values()]
    text = (out / "table5.md").read_text()
    assert "A TEST" in text and str(by_method["prfl"]["commit"])[:12] in text


def test_figures_are_drawn_from_what_there_is(done):
    out, todo = done
    reports = {("tiny", run.method): [runs.load(run, out)] for run in todo}
    figures.fig8(Material(out, dataclasses.replace(SMOKE, mark="A TEST"), {}, 1))  # by the clock alone, without reports
    figures.fig9(material(out, (tiny_column(),), reports, mark="A TEST"))
    ablations = Column("tiny", "tiny", lambda c: None, (0.5,), "", None, ("prfl", *paper.ABLATIONS))
    reports["tiny", "prfl_syn"] = reports["tiny", "prfl"]
    figures.fig10(material(out, (ablations,), reports, mark="A TEST"))
    for name in ("fig8", "fig9", "fig10"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "</svg>" in (out / f"{name}.svg").read_text()
        assert "A TEST" in (out / f"{name}.svg").read_text()
    words = {
        "fig8": ("downloads", "uploads", "waits", "FedAsyn", "simulated time (s)"),
        "fig9": ("PR-FL", "FedAvg", "15 %", "test accuracy (%)"),
        "fig10": ("PR-FL syn", "density of each client"),
    }
    for name, expected in words.items():
        assert all(word in (out / f"{name}.svg").read_text() for word in expected), name
    assert "computes" not in (out / "fig8.svg").read_text()  # takes no time in these presets


def test_tables_show_every_seed_there_is(done, tmp_path, capsys):
    """A second call with fewer seeds takes nothing away."""
    out, todo = done
    for seed in (0, 4):
        run = dataclasses.replace(todo[0], seed=seed)
        report = json.loads(todo[0].file(out).read_text())
        report["seed"] = report["config"]["seed"] = seed
        run.file(tmp_path).parent.mkdir(parents=True, exist_ok=True)
        run.file(tmp_path).write_text(json.dumps(report))
    render(STUDY, ["table5"], Preset("tiny", (tiny_column(),), 20), tmp_path, 1)
    assert rows_of(tmp_path / "table5.csv")[0]["seeds"] == "2"
    text = (tmp_path / "table5.md").read_text()
    assert "not run yet: tiny: PR-FL (2 of 5 seeds), FedAvg" in text
    render(STUDY, ["table5"], Preset("other", (), 20), tmp_path / "empty", 1)
    assert "no report yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content",
    ['{"schema_version": 1}', '{"schema_version": 1, "config": [1]}', "", '{"schema_version": 1, "conf', "[1]"],
)
def test_a_file_that_is_no_report_is_told_in_one_line(tmp_path, content):
    file = tmp_path / "runs/smoke_iid/fedavg_seed2.json"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    with pytest.raises(UserError, match="fedavg_seed2.json: .*report"):
        runs.reports_of(SMOKE.columns, tmp_path)
    file.unlink()
    file.mkdir()
    with pytest.raises(UserError, match="fedavg_seed2.json"):
        runs.reports_of(SMOKE.columns, tmp_path)

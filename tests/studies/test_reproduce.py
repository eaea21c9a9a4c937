"""Which runs are made, and what tables and figures say about them."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from marked import every_fifth
from matplotlib.figure import Figure
from paths import ROOT

from prfl_jax.config.canonical import assign, same_run, to_dict
from prfl_jax.config.cli import load_config
from prfl_jax.config.validate import validate
from prfl_jax.runtime.dry_run import ASSUMED_FLOP_S, estimate
from prfl_jax.strategies.table import METHODS
from prfl_jax.studies import runs
from prfl_jax.studies.prfl import figures, make, paper, presets, tables
from prfl_jax.system.errors import InUse, UserError
from prfl_jax.system.signals import InterruptGuard

# --- the paper's numbers ---


def test_the_papers_numbers_stand_where_the_paper_has_them():
    # sums of the rows as printed, over both accuracies of all four columns (Table IV) and in hundredths (Table V)
    sums = {"prfl": 221_000, "heterofl_windowed": 377_600, "fedfix": 474_600, "fedasyn": 661_300, "fedavg": 686_100}
    for method, total in sums.items():
        cells = [row[method] for column in paper.TABLE4.values() for row in column.values()]
        assert len(cells) == 8 and sum(cell or 0 for cell in cells) == total
    sums = {"prfl": 345.15, "heterofl_windowed": 340.24, "fedfix": 341.72, "fedasyn": 339.14, "fedavg": 323.31}
    for method, total in sums.items():
        assert 100 * sum(column[method] for column in paper.TABLE5.values()) == pytest.approx(total)
    assert [sum(row) for row in paper.TABLE3.values()] == [59_101, 99_643]
    assert paper.TABLE4["cifar10", "non-iid"][0.84] == {
        "prfl": 52500, "heterofl_windowed": 97900, "fedfix": 111500, "fedasyn": 172500, "fedavg": None
    }  # fmt: skip
    assert paper.TABLE4["femnist", "iid"][0.80]["prfl"] == 10700
    assert paper.TABLE4["femnist", "non-iid"][0.835]["fedasyn"] == 81600
    assert paper.TABLE5["cifar10", "non-iid"]["heterofl_windowed"] == 0.8472
    assert paper.TABLE5["femnist", "iid"]["fedavg"] == 0.7922
    # not in the paper's tables
    families = (
        *("fjord", "fedrolex", "fiarse", "fedavgm", "fedadagrad", "fedadam", "fedyogi", "fedprox", "scaffold"),
        *("flexcom", "asyn_f", "fedmp", "up_fl"),
    )
    others = {name for name in METHODS if name.startswith(families)}
    assert set(paper.MAIN + paper.ABLATIONS + paper.EXTRAS) == set(METHODS) - others and len(others) == 22


def test_three_densities_by_the_clock_are_the_papers_example():
    assert tables.example_ratio() == pytest.approx(1.99)


# --- presets ---

PRESETS = {"smoke": presets.smoke(), "cpu": presets.cpu(), "full": presets.full(False), "femnist": presets.full(True)}


@pytest.mark.parametrize("name", PRESETS)
def test_configs_are_valid_and_methods_differ_in_their_row(name):
    for column in PRESETS[name].columns:
        rows = {}
        for method in column.methods:
            config = column.config(method, 1)
            validate(config)
            assert config.seed == 1 and tuple(config.eval.thresholds) == column.thresholds
            seams = set(METHODS[method].keys()) | {"strategy"}
            flat = {f"{g}.{k}" if isinstance(v, dict) else g: x for g, v in to_dict(config).items()
                    for k, x in (v.items() if isinstance(v, dict) else [(g, v)])}  # fmt: skip
            rows[method] = {key: value for key, value in flat.items() if key not in seams}
        assert all(row == rows["prfl"] for row in rows.values())
        assert column.paper is None or len(paper.TABLE4[column.paper]) == len(column.thresholds)


def test_full_is_the_papers_setting():
    dts = {(c.paper, c.config("prfl", 0).window.dt_s): c.config("prfl", 0) for c in PRESETS["femnist"].columns}
    assert {dt for (data, _), dt in dts if data == "cifar10"} == {12.5, 10.5}
    assert {dt for (data, _), dt in dts if data == "femnist"} == {14.0, 7.0}
    for ((data, _), _), config in dts.items():
        assert config.horizon_s == {"cifar10": 250_000, "femnist": 140_000}[data]
        assert (config.density.interval, config.density.patience, config.local.lr) == (50, 10, 0.25)
        assert (config.density.min_delta, config.density.delta_rho, config.model.width) == (0.0, 0.2, 1.0)
        assert (config.local.steps, config.local.batch_size, config.data.test_limit) == (5, 20, None)
        assert config.model.name == {"cifar10": "vgg11", "femnist": "conv2"}[data]
        assert config.model.size_mb == {"cifar10": 39.2, "femnist": 26.5}[data]
        assert config.density.min_density == {"cifar10": 0.1, "femnist": 0.05}[data]
        assert config.clients.up_mb_s == (5, 4, 3, 2.5, 1.5, 1, 0.6, 0.5, 0.5, 0.4)
        assert config.clients.down_mb_s == (20, 18, 12, 10, 6, 4, 2.5, 2, 2, 1.5)
        assert (config.server.up_mb_s, config.server.down_mb_s) == (20, 100)
        if data == "cifar10":  # 0.25 * 0.5 ** (r / 10000), r in windows of 12.5 s
            decay = (config.local.lr_decay, config.local.lr_decay_rounds, config.local.lr_dt_ref_s)
            assert decay == (0.5, 10_000, 12.5)
            assert config.data.alpha == 1.0
        else:
            assert config.local.lr_decay == 1.0 and config.data.writers == 193
    partitions = {c.paper: c.config("prfl", 0).data.partition for c in PRESETS["femnist"].columns}
    assert partitions == {
        ("cifar10", "iid"): "iid", ("cifar10", "non-iid"): "dirichlet",
        ("femnist", "iid"): "writer_iid", ("femnist", "non-iid"): "writer",
    }  # fmt: skip


def test_settings_alone_and_keys_changed_for_all_methods():
    cpu = PRESETS["cpu"].only(["mnist_by_writer"]).changed(["local.lr=1", "horizon_s=2100"])
    (column,) = cpu.columns
    assert column.key == "mnist_by_writer_local.lr=1_horizon_s=2100" and "local.lr=1" in column.title
    for method in ("prfl", "fedfix"):
        config, before = column.config(method, 3), PRESETS["cpu"].columns[0].config(method, 3)
        validate(config)
        assert (config.local.lr, config.horizon_s) == (1.0, 2100.0)
        assert (before.local.lr, before.horizon_s) == (0.5, 4200.0)
        assert config.strategy == method and config.seed == 3


# --- runs ---


def tiny_column(**change) -> presets.Column:
    def apply(c):
        for key, value in tiny.SETTINGS.items():
            if key not in ("rounds", "eval.thresholds"):  # the column has its own
                assign(c, key, value)
        c.horizon_s = 150.0
        for key, value in change.items():
            c.density[key] = value

    return presets.Column("tiny", "tiny", apply, (0.15, 0.3), "for a test", ("femnist", "non-iid"), ("prfl", "fedavg"))


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
    run = runs.Run(PRESETS["smoke"].columns[1], "prfl", 0)
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


# --- tables and figures ---


def rows_of(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as text:
        return list(csv.DictReader(text))


def test_tables_say_what_the_reports_say(done):
    out, todo = done
    preset = presets.Preset("tiny", (tiny_column(),), 20, mark="A TEST")
    by_method = {run.method: runs.load(run, out) for run in todo}
    reports = {("tiny", method): [report] for method, report in by_method.items()}
    tables.table4(out, preset, reports, 1)
    tables.table5(out, preset, reports, 1)
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


def fake(seed, accuracy, reached, percent=100):
    return {
        "seed": seed, "final": {"accuracy": accuracy, "model": "mask"}, "time_to_accuracy": reached, "commit": "abc",
        "device": {"kind": "cpu", "host_cores": 2}, "clients": [{"densities": {"percent": [100, percent]}}],
        "ended": {"how": "horizon"},
        "curves": {"mask": {"t_s": [10, 20, 30, 40, 50], "accuracy": [0.4, 0.6, 0.3, 0.5, accuracy]}},
    }  # fmt: skip


def test_spread_paired_differences_and_ratios(tmp_path):
    column = presets.Column("c", "C", lambda c: None, (0.5, 0.9), "why", ("femnist", "iid"), ("prfl", "fedavg"))
    preset = presets.Preset("p", (column,), 1)
    prfl = [fake(0, 0.9, {"0.5": 100.0, "0.9": 400.0}), fake(1, 0.8, {"0.5": 200.0, "0.9": None})]
    other = [fake(0, 0.7, {"0.5": 300.0, "0.9": None}), fake(1, 0.75, {"0.5": 300.0, "0.9": None})]
    tables.table4(tmp_path, preset, {("c", "prfl"): prfl, ("c", "fedavg"): other}, 2)
    first, second, third, fourth = rows_of(tmp_path / "table4.csv")
    assert first["never below from, s"] == second["never below from, s"] == "40 (40 to 40)"
    assert third["never below from, s"] == "50, 1 of 2 seeds" and fourth["never below from, s"] == "-"
    assert tables.lasting(prfl[0], 0.9) == 50 and tables.lasting(prfl[1], 0.9) is None
    assert tables.lasting(prfl[0], 0.3) == 10 and tables.lasting(prfl[0], 0.35) == 40
    assert first["first reached, s"] == "150 (100 to 200)" and third["first reached, s"] == "400, 1 of 2 seeds"
    assert second["less PR-FL's, s"] == "+150 (+100 to +200)"
    assert second["PR-FL : method, ours"] == "0.50 (0.33 to 0.67)"
    assert second["PR-FL : method, paper"] == f"{10700 / 136300:.2f}"
    assert fourth["seeds"] == "2" and fourth["first reached, s"] == "-" == fourth["less PR-FL's, s"]
    tables.table5(tmp_path, preset, {("c", "prfl"): prfl, ("c", "fedavg"): other}, 2)
    assert rows_of(tmp_path / "table5.csv")[1]["less PR-FL's"] == "-12.50 (-20.00 to -5.00)"


def test_norecover_is_void_where_prfl_has_not_recovered(tmp_path):
    column = presets.Column("c", "C", lambda c: None, (0.5, 0.9), "why", None, ("prfl", "prfl_norecover"))
    for percent, shown in ((88, "void"), (100, "70.00")):
        reached = {"0.5": 1.0, "0.9": None}
        reports = {("c", "prfl"): [fake(0, 0.9, reached, percent)], ("c", "prfl_norecover"): [fake(0, 0.7, reached)]}
        tables.table5(tmp_path, presets.Preset("p", (column,), 1), reports, 1)
        assert rows_of(tmp_path / "table5.csv")[1]["ours, %"] == shown
        assert ("noRecover is void" in (tmp_path / "table5.md").read_text()) == (shown == "void")
    alone = {("c", "prfl_norecover"): [fake(3, 0.7, {"0.5": 1.0, "0.9": None})]}
    tables.table5(tmp_path, presets.Preset("p", (column,), 1), alone, 1)
    assert "PR-FL was not run with seed 3" in (tmp_path / "table5.md").read_text()


def test_a_run_that_is_not_finite_is_told_and_ends_its_own_curve(tmp_path):
    column = presets.Column("c", "C", lambda c: None, (0.5, 0.9), "why", None, ("prfl", "fedavg"))
    preset, reached = presets.Preset("p", (column,), 1), {"0.5": 20.0, "0.9": None}
    good, bad = fake(0, 0.8, reached), fake(1, None, reached)
    bad["ended"] = {"how": "not_finite"}
    bad["curves"]["mask"] = {"t_s": [10, 20], "accuracy": [0.2, 0.4]}
    reports = {("c", "prfl"): [good, bad]}
    tables.table5(tmp_path, preset, reports, 2)
    row = rows_of(tmp_path / "table5.csv")[0]
    assert row["seeds"] == "2, of which 1 not finite" and row["ours, %"] == "80.00, 1 of 2 seeds"
    ax = Figure().subplots()
    mean = figures._curve(ax, [good, bad], "PR-FL", "k")
    assert mean == pytest.approx([30, 50, 30, 50, 80])  # both, both, then the good one alone
    assert ax.get_lines()[0].get_label() == "PR-FL (1 of 2 not finite)"


def test_the_event_log_is_the_clocks(tmp_path):
    config = presets.cpu().columns[0].config("fedasyn", 0)
    rounds, ends = figures.event_log(config, 12)
    assert ends == [7.0 * n for n in range(1, 13)]
    for r in rounds:
        assert r["dispatched"] <= r["downloaded"] <= r["computed"] <= r["arrived"] <= r["closed"] in ends
        assert r["dispatched"] == 0 or r["dispatched"] in ends
    by_client = [sum(r["client"] == c for r in rounds) for c in range(10)]
    assert by_client[0] > by_client[5] > 0


def test_figures_are_drawn_from_what_there_is(done):
    out, todo = done
    preset = presets.Preset("tiny", (tiny_column(),), 20, mark="A TEST")
    reports = {("tiny", run.method): [runs.load(run, out)] for run in todo}
    figures.fig8(out, dataclasses.replace(PRESETS["smoke"], mark="A TEST"))  # by the clock alone, without reports
    figures.fig9(out, preset, reports)
    ablations = presets.Column("tiny", "tiny", lambda c: None, (0.5,), "", None, ("prfl", *paper.ABLATIONS))
    reports["tiny", "prfl_syn"] = reports["tiny", "prfl"]
    figures.fig10(out, presets.Preset("tiny", (ablations,), 20, mark="A TEST"), reports)
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


# --- the script ---


def script(*arguments):
    call = [sys.executable, "scripts/reproduce.py", *arguments]
    return subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=200)


@pytest.mark.slow
def test_table3_by_the_script(tmp_path):
    done = script("--what=table3", f"--out={tmp_path}", "--preset=smoke")
    assert done.returncode == 0, done.stderr
    assert "mean abs. ln ratio" in done.stdout and (tmp_path / "table3.csv").exists()
    clocks, dt_s = make.clocks(10_000, 1)
    assert dt_s == 19.25
    assert tables.log_ratio_row1(clocks["fedasyn"][0]["updates"]) <= 0.03
    assert min(clocks["prfl_norecover"][0]["updates"]) >= 9_900
    assert math.isclose(tables.log_ratio_row1(paper.TABLE3["fedasyn"]), 0.0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    every_fifth(
        [
            (["--what=table9"], "--what=table9"),
            (["--preset=huge"], "--preset=huge"),
            (["--seeds=0"], "--seeds=0"),
            (["--budget_s=-3"], "--budget_s"),
            (["--only=prfl,fedsgd"], "--only=fedsgd"),
            (["--settings=mars", "--out=/tmp/nowhere"], "--settings=mars"),
            (["--change=local.lr=fast", "--out=/tmp/nowhere"], "local.lr"),
            (["--change=strategy=fedavg", "--out=/tmp/nowhere"], "--change=strategy"),
            (["--change=local.lr=1"], "--out=DIR"),
            (["--preset=smoke", "--out=results/mine"], "outside results/"),
            (["--preset=smoke", "--out=/proc/nowhere"], "--out"),
            (["--preset=smoke", "--out="], "--out is empty"),
        ]
    ),
)
def test_mistakes_are_one_line(arguments, words):
    done = script(*arguments)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_what_is_run_for_a_table_or_figure():
    (column,) = PRESETS["cpu"].only(["mnist_by_writer"]).columns
    for what, only, expected in (
        (["table4"], [], paper.MAIN),
        (["fig10"], [], ("prfl", *paper.ABLATIONS, *paper.EXTRAS)),
        (list(make.WHAT), [], (*paper.MAIN, *paper.ABLATIONS, *paper.EXTRAS)),
        (["table4"], ["fedbuff"], ("fedbuff",)),  # named, so run
        (["table3"], [], ()),
    ):
        assert tuple(make.methods_for(what, only, [column])(column)) == expected


@pytest.mark.parametrize(
    "content",
    ['{"schema_version": 1}', '{"schema_version": 1, "config": [1]}', "", '{"schema_version": 1, "conf', "[1]"],
)
def test_a_file_that_is_no_report_is_told_in_one_line(tmp_path, content):
    file = tmp_path / "runs/smoke_iid/fedavg_seed2.json"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    with pytest.raises(UserError, match="fedavg_seed2.json: .*report"):
        runs.reports_of(PRESETS["smoke"].columns, tmp_path)
    file.unlink()
    file.mkdir()
    with pytest.raises(UserError, match="fedavg_seed2.json"):
        runs.reports_of(PRESETS["smoke"].columns, tmp_path)


def test_tables_show_every_seed_there_is(done, tmp_path, capsys):
    """A second call with fewer seeds takes nothing away."""
    out, todo = done
    for seed in (0, 4):
        run = dataclasses.replace(todo[0], seed=seed)
        report = json.loads(todo[0].file(out).read_text())
        report["seed"] = report["config"]["seed"] = seed
        run.file(tmp_path).parent.mkdir(parents=True, exist_ok=True)
        run.file(tmp_path).write_text(json.dumps(report))
    make.render(["table5"], presets.Preset("tiny", (tiny_column(),), 20), tmp_path, 1)
    assert rows_of(tmp_path / "table5.csv")[0]["seeds"] == "2"
    text = (tmp_path / "table5.md").read_text()
    assert "not run yet: tiny: PR-FL (2 of 5 seeds), FedAvg" in text
    make.render(["table5"], presets.Preset("other", (), 20), tmp_path / "empty", 1)
    assert "no report yet" in capsys.readouterr().out


def test_an_unknown_preset_is_refused():
    with pytest.raises(UserError, match="full, cpu, smoke"):
        make.preset_named("paper")

"""scripts/train.py and the Python API as a user meets them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import tiny
from paths import ROOT

import prfl_jax
from prfl_jax import strategies
from prfl_jax.config.canonical import config_hash, to_dict
from prfl_jax.report import load_schema, read_metrics
from prfl_jax.runtime.clock_only import run_clock
from prfl_jax.runtime.training import train
from prfl_jax.runtime.workdir import Workdir
from prfl_jax.system.errors import UserError

PNG = b"\x89PNG\r\n\x1a\n"


def test_train_compares_summarises_and_writes(tmp_path, capsys):
    config = tiny.config(compare=("fedavg",), rounds=12)
    assert train(config, "configs/mine.py", str(tmp_path / "run")) == 0
    said = capsys.readouterr()
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    jsonschema.validate(report, load_schema())
    other = json.loads((tmp_path / "run" / "compare" / "fedavg" / "report.json").read_text())
    beside = report["compare"]["fedavg"]
    assert beside["accuracy"] is not None and beside["windows"] == other["windows"] > 0
    assert other["strategy"] == "fedavg" and other["simulated_s"] <= report["simulated_s"]
    for words in ("FedAvg", "client updates", "delta split saved", "compiling, not counted", "back at density 1"):
        assert words in said.out
    assert "window 12/12" in said.err
    assert (tmp_path / "run" / "figure.png").read_bytes().startswith(PNG)
    assert (tmp_path / "run" / "report.json").stat().st_size < 1_000_000


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, capsys):
    config = tiny.config(local__lr=1e30, rounds=30)
    assert train(config, "configs/mine.py", str(tmp_path / "run")) == 1
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    jsonschema.validate(report, load_schema())
    windows = [r for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "window"]
    bad = next(r for r in windows if None in r["loss"])
    assert report["ended"] == {
        "how": "not_finite",
        "window": bad["window"],
        "client": bad["arrivals"][bad["loss"].index(None)],
        "detail": report["ended"]["detail"],
    }
    assert f"client {report['ended']['client']} in window {bad['window']}" in report["ended"]["detail"]
    assert windows[-1] is not None and windows[-1]["window"] == bad["window"] < 30
    assert report["final"]["accuracy"] is None
    assert "STOPPED" in capsys.readouterr().out


@pytest.mark.slow
def test_a_horizon_before_the_first_window_ends_well(tmp_path, capsys):
    config = tiny.config(compare=("fedavg",), horizon_s=0.01)
    assert train(config, "configs/mine.py", str(tmp_path / "run")) == 0
    assert "Ended after 0 windows" in capsys.readouterr().out


@pytest.mark.slow
def test_a_model_that_diverged_in_its_last_step_is_reported(tmp_path):
    config = tiny.config(local__lr=1e38, local__steps=1, rounds=1)
    report = prfl_jax.Experiment(config).run(tmp_path / "run", progress=False).report
    assert report["ended"]["how"] == "not_finite" and "server model's loss" in report["ended"]["detail"]


def test_a_second_process_is_kept_out_also_while_comparing(tmp_path):
    config = tiny.config()
    theirs = Workdir(tmp_path / "run", to_dict(config), config_hash(config))
    with theirs, pytest.raises(UserError, match="another run is writing there"):
        train(config, "configs/mine.py", str(tmp_path / "run"))


@pytest.mark.slow
def test_an_own_model_from_a_file(tmp_path):
    """With postponed annotations, which dataclasses look up in the module's namespace."""
    (tmp_path / "own.py").write_text(
        "from __future__ import annotations\nimport flax.linen as nn\n\n\nclass Net(nn.Module):\n"
        "    classes: int\n\n    @nn.compact\n    def __call__(self, x):\n"
        "        return nn.Dense(self.classes)(x.reshape(x.shape[0], -1))\n"
    )
    config = tiny.config(model__name=f"{tmp_path}/own.py:Net", rounds=2)
    report = prfl_jax.Experiment(config).run(tmp_path / "run", progress=False).report
    assert report["model"]["parameters"] == 784 * 10 + 10


@pytest.mark.parametrize("importance", ["server_sq_grad", "client_sq_grad", "weight", "product"])
def test_the_clock_alone_charges_what_training_charges(importance):
    config = tiny.config(submodel__importance=importance, density__interval=100)
    sim = tiny.Simulation(config)
    planner = sim.new_planner()
    windows = [planner.take().window for _ in range(7)]
    alone = run_clock(config, 7, sim.method.size)
    assert alone["simulated_s"] == windows[-1].end_s
    assert alone["bytes_up"] == sum(w.bytes_up for w in windows)
    charged = sim.costs(np.full(4, 100)).up_bytes - sim.costs(np.full(4, 100)).down_bytes
    prunable = round(sim.method.size.prunable * sim.method.size.bytes_per_value)
    assert charged.tolist() == [prunable if importance == "client_sq_grad" else 0] * 4


@pytest.mark.slow
def test_the_stop_rule_ends_the_run_only_where_configured(tmp_path):
    changes = {"density__min_density": 1.0, "density__min_delta": 1.0, "density__interval": 2, "rounds": 12}
    marked = prfl_jax.Experiment(tiny.config(**changes)).run(tmp_path / "a", progress=False).report
    assert marked["ended"]["how"] == "rounds" and marked["windows"] == 12
    assert marked["stop_rule"] is not None
    stopped = prfl_jax.Experiment(tiny.config(stop_early=True, **changes)).run(tmp_path / "b", progress=False).report
    assert stopped["ended"]["how"] == "stop_rule"
    assert stopped["windows"] < 12 and stopped["windows"] % 2 == 0


def test_the_horizon_ends_a_run_and_the_grid_reaches_it(tmp_path):
    report = prfl_jax.Experiment(tiny.config(horizon_s=45.0, rounds=500)).run(tmp_path / "a", progress=False).report
    assert report["ended"]["how"] == "horizon"
    assert report["simulated_s"] <= 45.0
    curve = report["curves"]["mask"]
    assert curve["t_s"] == [0.0, 9.0, 18.0, 27.0, 36.0, 45.0]
    assert all(model <= t for model, t in zip(curve["model_s"], curve["t_s"], strict=True))


@pytest.mark.slow
def test_a_grid_second_is_answered_by_the_model_in_force(tmp_path):
    """FedAvg's windows are longer than the grid: the same model answers several points."""
    ran = tiny.run("fedavg", rounds=3, eval_every_s=2.0)
    ends = {r["window"]: r["end_s"] for r in ran.of("window")} | {0: 0.0}
    for record in ran.of("eval"):
        assert record["model_s"] == ends[record["window"]] <= record["t_s"]
        following = ends.get(record["window"] + 1)
        assert following is None or record["t_s"] < following


@pytest.mark.slow
def test_a_learning_rate_that_decays_to_nothing_does_no_harm():
    ran = tiny.run("prfl", rounds=60, local__lr_decay=1e-9, local__lr_decay_rounds=1, window__dt_s=5.0)
    assert ran.report["ended"]["how"] == "rounds" and min(ran.of("interval")[-1]["percents"]) < 100


def test_importance_that_is_not_finite_ends_the_run(monkeypatch):
    scores = tiny.Simulation._importance_scores
    monkeypatch.setattr(tiny.Simulation, "_importance_scores", lambda *a: tuple(s / 0.0 for s in scores(*a)))
    ran = tiny.run_experiment(prfl_jax.Experiment(tiny.config()))
    assert ran.report["ended"]["how"] == "not_finite" and "importance" in ran.report["ended"]["detail"]


def test_a_grid_too_fine_for_a_window_is_refused(tmp_path):
    config = tiny.config(eval_every_s=1e-6)
    with pytest.raises(UserError, match="config.eval_every_s=1e-06: allowed is more"):
        prfl_jax.Experiment(config).run(tmp_path, progress=False)


def test_compared_methods_share_partition_and_initial_model():
    config = tiny.config()
    a, b = tiny.Simulation(config), tiny.Simulation(strategies.for_comparison(config, "fedavg"))
    assert [c.tolist() for c in a.split.clients] == [c.tolist() for c in b.split.clients]
    tiny.same(a.init_state(a.init_key).params, b.init_state(b.init_key).params)


def script(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/tests"}
    call = [sys.executable, str(ROOT / "scripts/train.py"), *arguments]
    return subprocess.run(call, cwd=cwd, env=environment, capture_output=True, text=True, timeout=200)


MISTAKES = [
    (["--config.rounds=abc"], "rounds"),
    (["--config.clients.up_mb_s=(1.0,2.0,3.0)"], "clients.up_mb_s"),
    (["--config.density.min_density=0"], "density.min_density"),
    (["--config.windw.dt_s=3"], "window.dt_s"),
    (["--config.data.name=nowhere.npz"], "nowhere.npz"),
    (["--config.model.name=no_such_module:Net"], "no_such_module"),
    (["--config.model.name=vgg11"], "model"),
    (["--config.data.name=cifar10"], "prepare_data.py"),
    (["--workdir=/proc/nowhere"], "--workdir"),
    (["--config.data.holdout_fraction=0.0001"], "data.holdout_fraction"),
]


# Most of them are found seconds after the start, once JAX and the data are loaded.
@pytest.mark.parametrize(
    ("arguments", "words"),
    [MISTAKES[0], *(pytest.param(*mistake, marks=pytest.mark.processes) for mistake in MISTAKES[1:])],
)
def test_a_mistake_is_one_line_and_leaves_nothing(arguments, words, tmp_path):
    where = tmp_path / "data"
    done = script(f"--config={ROOT}/configs/quickstart.py", f"--config.data.dir={where}", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and words in lines[0], done.stderr
    assert not done.stdout and not list(tmp_path.rglob("*.json*"))


@pytest.mark.slow
def test_readme_python_runs(tmp_path, monkeypatch):
    """The six lines of README, with a smaller model so that they are quick."""
    text = (ROOT / "README.md").read_text()
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 6
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    small = '{"rounds": 3, "model.name": "tiny:TwoLayers", "data.train_limit": 500, '
    exec(compile(code.replace('{"rounds": 20', small + '"engine.chunk_windows": 3'), "README.md", "exec"), {})
    assert (tmp_path / "runs/first/accuracy.png").read_bytes().startswith(PNG)


def test_readme_names_files_that_exist():
    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"(?:configs|scripts|prfl_jax|results)/[\w./]*\w", text):
        assert (ROOT / name).exists(), name
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 2 and all(len(block.strip().splitlines()) == 1 for block in blocks[:2])

"""The file that a run leaves is the model whose accuracy its report gives, whichever headline was asked for.

The oracle loads the file and counts right answers on the test images in float64 NumPy, sample by sample in order of the
array, and knows nothing of evaluators, padding or batches.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from unittest import mock

import ml_dtypes
import numpy as np
import pytest
import tiny
from marked import slow, slow_except
from paths import HELPERS, ROOT

import prfl_jax
from prfl_jax.models import save_model
from prfl_jax.report import load_schema, read_metrics, read_report
from prfl_jax.runtime.batched_runs import run_batched
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.system.errors import UserError
from prfl_jax.system.signals import Interrupted

NAMES = ("mask", "fedavg")


def right_answers(params, simulation):
    """How many test images TwoLayers labels rightly, and how many there are; pixels are x/255."""
    rows = simulation.split.test
    images, labels = simulation.dataset.x_test[rows], simulation.dataset.y_test[rows]
    first, last = params["Dense_0"], params["Dense_1"]
    right = 0
    for image, label in zip(images, labels, strict=True):
        pixels = image.astype(np.float64).reshape(-1) / 255
        hidden = np.maximum(pixels @ first["kernel"].astype(np.float64) + first["bias"], 0)
        right += int(np.argmax(hidden @ last["kernel"].astype(np.float64) + last["bias"]) == label)
    return right, len(labels)


def accuracy(path, experiment):
    """Of a saved model; exact, ties by rounding apart (there are none here)."""
    right, count = right_answers(prfl_jax.load_model(path), experiment.simulation)
    return right / count


def run(folder, experiment, guard=None):
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        return experiment.run(folder, progress=False, guard=guard)


def holds(folder, experiment, finished=None):
    """The headline's file has the report's accuracy, the other file the other one's, and nothing else is there."""
    report = read_report(folder / "report.json")
    final, files = report["final"], report["model"]["files"]
    headline = final["model"]
    assert headline == experiment.config.eval.model and files[headline] == "final_model.npz"
    assert final["accuracy"] == final[headline]["accuracy"] is not None
    for name in NAMES:
        assert accuracy(folder / files[name], experiment) == pytest.approx(final[name]["accuracy"], abs=1e-12), name
    assert {path.name for path in folder.glob("*.npz")} == set(files.values())
    if finished is not None:
        tiny.same(finished.params, prfl_jax.load_model(folder / "final_model.npz"))
        for name in NAMES:
            tiny.same(finished.models[name], prfl_jax.load_model(folder / files[name]))
    # the last window's model, whatever came before: the records' final line, and their last evaluation if it is of it
    records = list(read_metrics(folder / "metrics.jsonl"))
    last = [record for record in records if record["kind"] == "final"][-1]
    assert last["window"] == report["windows"] and last[headline]["accuracy"] == final["accuracy"]
    evaluated = [record for record in records if record["kind"] == "eval"][-1]
    if evaluated["window"] == report["windows"]:
        assert evaluated[headline]["accuracy"] == final["accuracy"]
    return report


@pytest.mark.parametrize("headline", slow_except(NAMES, "fedavg"))
def test_the_saved_model_is_the_reports(headline, tmp_path):
    experiment = Experiment(tiny.config("prfl", rounds=12, eval__model=headline))
    report = holds(tmp_path, experiment, run(tmp_path, experiment))
    assert report["final"]["mask"]["accuracy"] != report["final"]["fedavg"]["accuracy"]  # else nothing was tested
    other = NAMES[headline == "mask"]
    assert report["model"]["files"][other] == f"final_model_{other}.npz"


@pytest.mark.slow
def test_both_headlines_save_the_same_two_models(tmp_path):
    for headline in NAMES:
        run(tmp_path / headline, Experiment(tiny.config("prfl", rounds=12, eval__model=headline)))

    def load(folder, file):
        return prfl_jax.load_model(tmp_path / folder / file)

    tiny.same(load("mask", "final_model.npz"), load("fedavg", "final_model_mask.npz"))
    tiny.same(load("fedavg", "final_model.npz"), load("mask", "final_model_fedavg.npz"))


@pytest.mark.parametrize(
    ("strategy", "changes"),
    [
        slow("fedavg", {"eval__model": "mask"}),
        ("fedasync", {}),
        slow("fedbuff", {}),
        slow("prfl_fedavg", {}),
        slow("fedavg", {"aggregation__name": "median", "aggregation__byzantine": 1}),
    ],
)
def test_where_the_two_models_are_one_there_is_one_file(strategy, changes, tmp_path):
    experiment = Experiment(tiny.config(strategy, **{"eval__model": "fedavg", **changes}))
    report = holds(tmp_path, experiment, run(tmp_path, experiment))
    assert set(report["model"]["files"].values()) == {"final_model.npz"}
    assert report["final"]["mask"] == report["final"]["fedavg"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["prfl_nobuff", "prfl_syn", "prfl_nores"])
def test_other_methods_with_two_models(strategy, tmp_path):
    experiment = Experiment(tiny.config(strategy, eval__model="fedavg"))
    holds(tmp_path, experiment, run(tmp_path, experiment))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"engine__store": "bfloat16"},
        {"engine__models": "host", "engine__devices": 1},
        {"aggregation__server_lr": 0.5},
        {"stop_early": True, "rounds": 60, "density__patience": 1, "density__min_delta": 0.9},
        {"horizon_s": 1.0},
    ],
    ids=["store", "host", "server_lr", "stop_early", "nothing"],
)
def test_settings_that_move_the_second_model(changes, tmp_path):
    experiment = Experiment(tiny.config("prfl", eval__model="fedavg", **changes))
    report = holds(tmp_path, experiment, run(tmp_path, experiment))
    if changes.get("stop_early"):
        assert report["ended"]["how"] == "stop_rule"  # the last model, not the best of the run


def test_a_run_that_was_stopped_and_one_that_is_finished_again(tmp_path):
    """A signal leaves checkpoints and no model; the run that goes on, and one that is started again, save the same."""
    experiment = Experiment(tiny.config("prfl", rounds=20, eval__model="fedavg"))
    whole = run(tmp_path / "whole", experiment)
    with pytest.raises(Interrupted):
        run(tmp_path / "stopped", experiment, guard=tiny.StopAt(6))
    assert not list((tmp_path / "stopped").glob("final_model*"))
    again = run(tmp_path / "stopped", experiment)
    holds(tmp_path / "stopped", experiment, again)
    for file in (tmp_path / "stopped").glob("final_model*"):
        file.unlink()
    holds(tmp_path / "stopped", experiment, run(tmp_path / "stopped", experiment))
    for name in NAMES:
        tiny.same(again.models[name], whole.models[name])


@pytest.mark.slow
def test_experiments_in_one_process(tmp_path):
    configs = [tiny.config("prfl", seed=seed, eval__model=name) for seed, name in enumerate(NAMES)]
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        run_batched(configs, [tmp_path / "0", tmp_path / "1"], progress=False)
    for number, config in enumerate(configs):
        holds(tmp_path / str(number), Experiment(config))


@pytest.mark.processes
def test_the_command_names_the_model_that_each_run_saves(tmp_path):
    """`scripts/train.py` with --seeds: each line names the model; `compare` has the same headline."""
    file = tmp_path / "config.py"
    file.write_text(
        "import tiny\n\ndef get_config():\n"
        "    return tiny.config('prfl', eval__model='fedavg', compare=('fedavg', 'prfl_nobuff'))\n"
    )
    path = f"{ROOT}:{HELPERS}"
    done = subprocess.run(
        [sys.executable, "scripts/train.py", f"--config={file}", "--seeds=2", f"--workdir={tmp_path / 'runs'}"],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("seed")]
    assert len(rows) == 2 and all("FedAvg(B) model" in row for row in rows)
    for seed in (0, 1):
        folder = tmp_path / "runs" / f"seed{seed}"
        report = holds(folder, Experiment(tiny.config("prfl", seed=seed, eval__model="fedavg")))
        assert {name: entry["model"] for name, entry in report["compare"].items()} == {
            "fedavg": "fedavg", "prfl_nobuff": "fedavg",
        }  # fmt: skip
        assert {name: entry["one_model"] for name, entry in report["compare"].items()} == {
            "fedavg": True, "prfl_nobuff": False,
        }  # fmt: skip
        other = json.loads((folder / "compare" / "prfl_nobuff" / "report.json").read_text())
        right, count = right_answers(
            prfl_jax.load_model(folder / "compare" / "prfl_nobuff" / "final_model.npz"),
            tiny.simulation("prfl_nobuff", seed=seed),
        )
        assert right / count == pytest.approx(other["final"]["accuracy"], abs=1e-12)


def test_a_type_that_numpy_cannot_save_is_read_back(tmp_path):
    params = {"Dense_0": {"kernel": np.array([1.5, -0.0078125, 3e38], ml_dtypes.bfloat16), "bias": np.float32(2)}}
    save_model(str(tmp_path / "model.npz"), params)
    loaded = prfl_jax.load_model(tmp_path / "model.npz")
    assert loaded["Dense_0"]["kernel"].dtype == np.float32
    assert (loaded["Dense_0"]["kernel"] == params["Dense_0"]["kernel"].astype(np.float32)).all()
    with pytest.raises(UserError, match="not a saved model"):
        prfl_jax.load_model(tmp_path / "none.npz")


def test_reports_without_names_of_model_files_are_valid():
    validate = pytest.importorskip("jsonschema").Draft202012Validator(load_schema()).validate
    report = dict(tiny.run("prfl").report)
    validate(report)
    report["model"] = {k: v for k, v in report["model"].items() if k != "files"}
    validate(report)

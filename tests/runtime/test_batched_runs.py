"""Several experiments in one process: as separate runs, whatever they differ in."""

from __future__ import annotations

import shutil
import time
from unittest import mock

import pytest
import tiny
from marked import slow_except

from prfl_jax.report import read_metrics, read_report
from prfl_jax.runtime.batched_runs import BatchedRuns, run_batched
from prfl_jax.runtime.evaluation_grid import EvaluationGrid
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.runtime.training import Variants, train
from prfl_jax.system.errors import UserError
from prfl_jax.system.signals import Interrupted


def windows(finished):
    return [r for r in read_metrics(finished.workdir / "metrics.jsonl") if r["kind"] == "window"]


def together(configs, tmp_path, guard=None):
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        return run_batched(configs, [tmp_path / str(i) for i in range(len(configs))], guard=guard, progress=False)


def same_as_alone(finished, config):
    """Identical arrivals, models within 1e-5 of those of a run of its own."""
    alone = tiny.run_experiment(Experiment(config))
    for got, want in zip(windows(finished), alone.of("window"), strict=True):
        loss, theirs = got.pop("loss"), want.pop("loss")
        assert got == want and loss == pytest.approx(theirs, rel=1e-4)
    tiny.close(finished.params, alone.params)
    for key in ("windows", "simulated_s", "client_updates", "bytes_up", "bytes_down", "ended", "config_hash"):
        assert finished.report[key] == alone.report[key], key


# Rounding must not reach the choice of what is pruned, so importance is the weight itself.
STEADY = {"rounds": 20, "submodel__importance": "weight", "density__interval": 4, "local__lr": 0.1}


@pytest.mark.parametrize("method", slow_except(["prfl", "fedavg", "fedasync", "fedbuff", "heterofl"], "prfl"))
def test_seeds_together_equal_separate_runs(method, tmp_path):
    configs = [tiny.config(method, seed=seed, **STEADY) for seed in range(3)]
    for finished, config in zip(together(configs, tmp_path), configs, strict=True):
        same_as_alone(finished, config)


@pytest.mark.slow
def test_settings_that_change_no_shape_may_differ(tmp_path):
    configs = [
        tiny.config("fedbuff", **{**STEADY, **change})
        for change in (
            {"local__lr": 0.05},
            {"window__k": 2, "rounds": 7},  # ends before the others
            {"aggregation__staleness": "constant", "clients__sigma": 0.0},
            {"horizon_s": 30.0},
            {"data__partition": "labels", "data__labels_per_client": 5},
        )
    ]
    for finished, config in zip(together(configs, tmp_path), configs, strict=True):
        same_as_alone(finished, config)


@pytest.mark.slow
def test_images_of_their_own(tmp_path):
    """Two seeds draw other training images where their number is limited; two of other numbers of images too."""
    configs = [tiny.config("fedavg", seed=1, rounds=3), tiny.config("fedavg", rounds=3, data__train_limit=300)]
    for finished, config in zip(together(configs, tmp_path), configs, strict=True):
        same_as_alone(finished, config)


@pytest.mark.slow
def test_they_go_on_where_a_signal_stopped_them(tmp_path):
    configs = [tiny.config("prfl", seed=seed, **STEADY) for seed in range(2)]
    with pytest.raises(Interrupted):
        together(configs, tmp_path, guard=tiny.StopAt(11))
    for finished, config in zip(together(configs, tmp_path), configs, strict=True):
        same_as_alone(finished, config)


@pytest.mark.slow
def test_a_damaged_checkpoint_of_any_of_them_is_told(tmp_path, capsys):
    configs = [tiny.config("fedavg", seed=seed, checkpoint__every_s=1e-6, rounds=8) for seed in range(2)]
    with pytest.raises(Interrupted):
        together(configs, tmp_path, guard=tiny.StopAt(14))
    newest = max((tmp_path / "1" / "checkpoints").iterdir(), key=lambda path: int(path.name))
    shutil.rmtree(newest / "state")
    together(configs, tmp_path)
    assert f"{tmp_path / '1'}: checkpoint {newest.name} is damaged" in capsys.readouterr().err


def test_what_is_compiled_has_to_be_alike(tmp_path):
    configs = [tiny.config("fedavg"), tiny.config("fedavg", local__steps=3)]
    with pytest.raises(UserError, match="--vary: what is compiled of local differs"):
        together(configs, tmp_path)
    with pytest.raises(UserError, match="clients.number or window.cohort differs"):
        together([tiny.config("fedavg"), tiny.config("fedavg", window__cohort=2)], tmp_path)
    with pytest.raises(UserError, match="config.engine.clients='map'"):
        together([tiny.config("fedavg", engine__clients="map")] * 2, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_error_of_one_ends_all(tmp_path):
    configs = [tiny.config("fedavg", seed=seed, rounds=4) for seed in range(2)]
    with (
        mock.patch.object(BatchedRuns, "_joined", side_effect=ZeroDivisionError),
        pytest.raises(ZeroDivisionError),
    ):
        together(configs, tmp_path)


def test_another_runs_folder_is_found_before_any_begins(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "something").write_text("mine")
    with pytest.raises(UserError, match="holds 'something' but no config.json"):
        together([tiny.config("fedavg", seed=seed) for seed in range(2)], tmp_path)
    assert not (tmp_path / "0" / "metrics.jsonl").exists()


@pytest.mark.slow
def test_what_stops_one_stops_the_others_with_a_checkpoint(tmp_path):
    """A run that fails in the middle; the other one saves, and goes on later."""
    configs = [tiny.config("fedavg", seed=seed, rounds=30, engine__chunk_windows=1) for seed in range(2)]
    answer = EvaluationGrid.answer

    def failing(self, until_s, inclusive):
        if self.run.config.seed == 1 and self.run.at.window == 3:
            raise OSError("no space")
        answer(self, until_s, inclusive)

    with mock.patch.object(EvaluationGrid, "answer", failing), pytest.raises(OSError, match="no space"):
        together(configs, tmp_path)
    saved = [path.name for path in (tmp_path / "0" / "checkpoints").iterdir()]
    assert saved and not (tmp_path / "0" / "report.json").exists()
    for finished, config in zip(together(configs, tmp_path), configs, strict=True):
        same_as_alone(finished, config)


@pytest.mark.slow
def test_waiting_is_no_training_time(tmp_path):
    configs = [tiny.config("fedavg", seed=seed, rounds=4, engine__chunk_windows=1) for seed in range(2)]
    answer = EvaluationGrid.answer

    def dawdling(self, until_s, inclusive):
        time.sleep(0.2 if self.run.config.seed else 0.0)
        answer(self, until_s, inclusive)

    with mock.patch.object(EvaluationGrid, "answer", dawdling):
        quick, other = together(configs, tmp_path)
    assert quick.report["host"]["waiting_s"] > 0.3 > other.report["host"].get("waiting_s", 0.0) - 1.0
    assert quick.report["host"]["steady_s"] < quick.report["host"]["total_s"]


@pytest.mark.slow
def test_one_call_trains_all(tmp_path):
    """Every call of the device holds a chunk of each experiment that still runs."""
    configs = [tiny.config("fedavg", seed=seed, rounds=6, engine__chunk_windows=2) for seed in range(3)]
    calls = []
    run = BatchedRuns._run_if_all_asked

    def counted(self):
        if self._running and self._asked.keys() == self._running:
            calls.append(len(self._asked))
        run(self)

    with mock.patch.object(BatchedRuns, "_run_if_all_asked", counted):
        together(configs, tmp_path)
    assert sum(calls) >= 9 and calls[0] == 3 and len(calls) <= sum(calls) / 2


def test_the_flags_name_the_experiments():
    config = tiny.config("prfl", seed=4)
    both = Variants(2, "local.lr=0.1,0.5").of(config)
    assert list(both) == [f"local.lr={lr}_seed{seed}" for lr in ("0.1", "0.5") for seed in (4, 5)]
    assert [(c.local.lr, c.seed) for c in both.values()] == [(0.1, 4), (0.1, 5), (0.5, 4), (0.5, 5)]
    assert list(Variants(3).of(config)) == ["seed4", "seed5", "seed6"] and Variants().of(config) == {}
    assert (config.local.lr, config.seed) == (0.25, 4)
    for wrong, why in (
        (Variants(0), "--seeds=0: allowed is a whole number of at least 1"),
        (Variants(vary="local.lr"), "--vary=local.lr: allowed is KEY=VALUE,VALUE"),
        (Variants(vary="seed=1,2"), "--vary=seed=1,2: allowed is"),
        (Variants(vary="local.lr=0.1,no"), "config.local.lr="),
        (Variants(vary="local.rate=0.1"), "config.local.rate"),
        (Variants(vary="local.lr=0.1,0.10"), "allowed are values that differ"),
        (Variants(vary="compare=fedavg"), "--vary=compare=fedavg: allowed is"),
    ):
        with pytest.raises(UserError, match=why):
            wrong.of(config)


@pytest.mark.slow
def test_several_with_their_comparisons_by_the_script_s_way(tmp_path, capsys):
    config = tiny.config("prfl", rounds=4, compare=("fedavg",))
    with mock.patch("prfl_jax.report.run_figure"), mock.patch("prfl_jax.runtime.experiment.run_figure"):
        assert train(config, "tiny.py", str(tmp_path / "all"), variants=Variants(2)) == 0
    said = capsys.readouterr().out
    for seed in (0, 1):
        folder = tmp_path / "all" / f"seed{seed}"
        report, other = (read_report(path / "report.json") for path in (folder, folder / "compare" / "fedavg"))
        assert report["seed"] == other["seed"] == seed and "fedavg" in report["compare"]
        assert other["simulated_s"] <= report["simulated_s"] and f"seed{seed}" in said

"""PR-FL on real data sets, where they are; images have a twin on the embedded ones that always runs."""

from __future__ import annotations

import pytest
import tiny
from paths import ROOT

from prfl_jax.config.cli import load_config
from prfl_jax.data import data_dir
from prfl_jax.runtime.experiment import Experiment

SETTINGS = {"rounds": 30, "eval_every_s": 1000.0, "local__lr": 0.5, "local__steps": 5, "engine__chunk_windows": 10}


def accuracy(tmp_path, **changes: object) -> float:
    report = Experiment(tiny.config(**{**SETTINGS, **changes})).run(tmp_path / "run", progress=False).report
    assert report["ended"]["how"] == "rounds"
    return report["final"]["accuracy"]


def needs(name: str) -> None:
    if not (data_dir(tiny.config().data) / f"{name}.npz").is_file():
        pytest.skip(f"{name}.npz is not in the data folder (PRFL_DATA_DIR); scripts/prepare_data.py builds it")


@pytest.mark.slow
def test_embedded_images_are_learned(tmp_path):
    assert accuracy(tmp_path, data__train_limit=2000) > 0.4


def test_mnist_by_writer_is_learned(tmp_path):
    needs("mnist_by_writer")
    changes = {"data__name": "mnist_by_writer", "data__partition": "writer", "data__train_limit": None}
    assert accuracy(tmp_path, data__test_limit=1000, **changes) > 0.4


def test_cifar10_is_learned_a_little(tmp_path):
    needs("cifar10")
    changes = {"data__name": "cifar10", "data__normalize": "cifar10", "data__augment": "crop_flip", "local__lr": 0.1}
    assert accuracy(tmp_path, data__train_limit=5000, data__test_limit=1000, rounds=60, **changes) > 0.15


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rounds", "accuracy"), [("japanese_vowels", 60, 0.85), ("italy_power", 150, 0.85)])
def test_configs_of_series_learn_prune_and_recover(tmp_path, name, rounds, accuracy):
    """The first part of the committed runs: the slowest clients are pruned, and some client grows again."""
    changes = {"rounds": rounds, "eval_every_s": 1000.0, "compare": ()}
    config = load_config(ROOT / f"configs/{name}.py", changes)
    if not (data_dir(config.data) / config.data.name).is_file():
        pytest.skip(f"{config.data.name} is not in the data folder (PRFL_DATA_DIR): a file of the UCR and UEA archives")
    report = Experiment(config).run(tmp_path / "run", progress=False).report
    assert report["ended"]["how"] == "rounds" and report["final"]["accuracy"] > accuracy
    assert min(entry["lowest_density"] for entry in report["clients"]) < 0.3
    assert any(entry["lowest_density"] < 1 and entry["recovered_s"] for entry in report["clients"])

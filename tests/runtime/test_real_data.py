"""PR-FL on real data sets; each has a twin on the embedded images that always runs."""

from __future__ import annotations

import pytest
import tiny

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

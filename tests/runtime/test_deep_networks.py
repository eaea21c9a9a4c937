"""ResNet-18 (both norms) and VGG-19 of a quarter of the width on CIFAR-10: loss falls, resume is equal to the bit.

Short rounds of two clients here; docs/networks.md has the command and the figures of 30 rounds of ten clients.
"""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import tiny

from prfl_jax.data import data_dir
from prfl_jax.models.variables import STATE
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.system.signals import Interrupted

ROUNDS = 40
# A few images, which the networks soon know by heart.
SETTINGS = dict(
    data__name="cifar10", data__normalize="cifar10", data__train_limit=40, data__test_limit=50,
    model__width=0.25, model__loss="softmax", clients__number=2, clients__up_mb_s=(5.0, 4.0),
    clients__down_mb_s=(20.0, 16.0), local__steps=1, local__batch_size=10, local__lr=0.05, rounds=ROUNDS,
    eval_every_s=1000.0, engine__chunk_windows=5, engine__devices=1,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _real_images():
    if not (data_dir(tiny.config().data) / "cifar10.npz").is_file():
        pytest.skip("cifar10.npz is not in the data folder (PRFL_DATA_DIR); scripts/prepare_data.py builds it")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "norm"), [("resnet18", "batch"), ("resnet18", "group"), ("vgg19", "batch")])
def test_loss_falls_and_a_resumed_run_is_the_same(tmp_path, name, norm):
    experiment = Experiment(tiny.config("fedavg", model__name=name, model__norm=norm, **SETTINGS))
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        whole = tiny.Ran(experiment, experiment.run(tmp_path / "whole", progress=False))
        with pytest.raises(Interrupted):
            experiment.run(tmp_path / "stopped", progress=False, guard=tiny.StopAt(4))
        assert not (tmp_path / "stopped" / "report.json").exists()
        resumed = tiny.Ran(experiment, experiment.run(tmp_path / "stopped", progress=False))
    losses = [np.mean(record["loss"]) for record in whole.of("window")]
    assert len(losses) == ROUNDS and np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5]), losses
    assert (STATE in whole.params) == (norm == "batch")
    tiny.same(resumed.params, whole.params)
    for kind in ("window", "eval", "final"):
        assert resumed.of(kind) == whole.of(kind)

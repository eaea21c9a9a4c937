"""A task from a user's file: its own metric, by sums of its own."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from prfl_jax.runtime.experiment import Experiment
from prfl_jax.system.errors import UserError
from prfl_jax.tasks import Metric, Task, find_task


def _top2(logits, labels):
    place = jnp.sum(logits > jnp.take_along_axis(logits, labels[:, None], axis=1), axis=1)
    return {"top2": (place < 2).astype(jnp.float32), "rank": place.astype(jnp.float32)}


TOP2 = Task(Metric("top2", lambda scores: scores.mean("top2")), extra=_top2)
RANK = Task(Metric("rank", lambda scores: scores.mean("rank"), higher_is_better=False, share=False), extra=_top2)
NO_TASK = Metric("top2", lambda scores: 0.0)


def test_its_metric_is_that_of_a_plain_loop(tmp_path):
    experiment = Experiment(tiny.config(task__name=f"{__file__}:TOP2"))
    finished = experiment.run(tmp_path / "run", progress=False)
    final = next(r for r in tiny.read_metrics(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "final")
    data, model = experiment.simulation.dataset, experiment.simulation.method.model
    x = jnp.asarray(data.x_test[experiment.simulation.split.test], jnp.float32) / 255
    logits = np.asarray(model.apply(finished.params, x, False, None), np.float64)
    y = data.y_test[experiment.simulation.split.test]
    hits = [label in np.argsort(row)[-2:] for row, label in zip(logits, y, strict=True)]
    assert final["mask"]["top2"] == pytest.approx(np.mean(hits), abs=1e-9)
    evals = [r for r in tiny.read_metrics(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "eval"]
    assert evals and all(r["mask"]["top2"] >= r["mask"]["accuracy"] for r in evals)


def test_it_trains_the_same_model_as_the_built_in_one(tmp_path):
    """Without recovery, which follows the metric."""
    own = Experiment(tiny.config("fedavg", task__name=f"{__file__}:TOP2")).run(tmp_path / "own", progress=False)
    tiny.same(own.params, tiny.run("fedavg").params)


def test_recovery_follows_its_metric():
    own, built_in = tiny.run("prfl", task__name=f"{__file__}:TOP2"), tiny.run("prfl")
    assert all("client_top2" in record for record in own.of("interval"))
    assert own.of("interval")[0]["client_accuracy"] == built_in.of("interval")[0]["client_accuracy"]


def test_what_is_no_task_is_refused_in_one_line():
    with pytest.raises(UserError, match="is a Metric.*allowed: a prfl_jax.tasks.Task") as caught:
        find_task(f"{__file__}:NO_TASK")
    assert "\n" not in str(caught.value)

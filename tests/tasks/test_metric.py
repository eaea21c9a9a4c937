"""A metric's direction, its levels, and the names that it may have."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tiny

from prfl_jax.config.canonical import canonical, config_hash, to_dict
from prfl_jax.config.cli import parse_value
from prfl_jax.config.defaults import default_config
from prfl_jax.config.validate import validate
from prfl_jax.system.errors import UserError
from prfl_jax.tasks import ACCURACY, PERPLEXITY, Metric, Scores, Task, find_task, is_level

GAIN = Metric("gain", lambda scores: 10.0, share=False)
LATE = Task(Metric("time_to_market", lambda scores: 0.0))
MEAN = Task(Metric("model", lambda scores: 0.0))
LOUD = Task(Metric("Loud", lambda scores: 0.0))
OTHER = Task(Metric("accuracy", lambda scores: scores.mean_loss))
PADDED = Task(ACCURACY, by_label=False)
RISK = Task(Metric("risk", lambda scores: scores.mean_loss, higher_is_better=False, share=False))


def test_better_and_reached_follow_the_direction():
    assert ACCURACY.better(0.5, 0.4) and not ACCURACY.better(0.4, 0.4)
    assert PERPLEXITY.better(90.0, 100.0) and not PERPLEXITY.better(100.0, 100.0)
    assert ACCURACY.reached(0.8, 0.8) and not ACCURACY.reached(0.79, 0.8)
    assert PERPLEXITY.reached(100.0, 100.0) and not PERPLEXITY.reached(100.1, 100.0)
    assert (ACCURACY.oriented(0.5), PERPLEXITY.oriented(90.0)) == (0.5, -90.0)


def test_perplexity_is_exp_of_the_mean_loss():
    counts = np.array([3, 5])
    assert PERPLEXITY.value(Scores(counts, counts, 8 * math.log(7.0))) == pytest.approx(7.0, rel=1e-12)
    assert PERPLEXITY.value(Scores(counts, counts, 8000.0)) == math.inf  # no float holds it


@pytest.mark.parametrize(
    ("metric", "levels", "others"),
    [
        (ACCURACY, (0.01, 0.99), (0.0, 1.0, 80.0, math.nan)),
        (PERPLEXITY, (1.5, 1e4), (1.0, 0.8, math.inf)),
        (GAIN, (-3.0, 0.0, 99.0), (math.inf, -math.inf)),
    ],
)
def test_levels_lie_between_the_bounds(metric, levels, others):
    assert all(is_level(metric, level) for level in levels)
    assert not any(is_level(metric, level) for level in others)


def config(task, thresholds):
    c = default_config()
    c.data.partition, c.task.name, c.eval.thresholds, c.model.loss = "iid", task, thresholds, "softmax"
    return c


@pytest.mark.parametrize(
    ("task", "thresholds", "allowed"),
    [
        ("classification", (0.5, 80.0), "(0, 1) with task.name='classification', whose metric is accuracy"),
        ("language_model", (200.0, 0.8), "(1, inf) with task.name='language_model', whose metric is perplexity"),
    ],
)
def test_thresholds_that_the_metric_cannot_have(task, thresholds, allowed):
    with pytest.raises(UserError) as error:
        validate(config(task, thresholds))
    assert str(error.value) == f"config.eval.thresholds={thresholds!r}: allowed is a tuple of numbers in {allowed}"


def test_thresholds_have_a_default_for_each_metric():
    """The one in force is hashed: a config that gives it is the same run, as before there was a default by metric."""
    own, given = default_config(), config("classification", (0.8, 0.9))
    given.data.partition, given.model.loss = own.data.partition, own.model.loss
    assert config_hash(own) == config_hash(given) and to_dict(own)["eval"]["thresholds"] == [0.8, 0.9]
    assert canonical(config("language_model", None))["eval.thresholds"] == ()
    assert canonical(config("tests.tasks.test_metric:RISK", None))["eval.thresholds"] == ()
    assert canonical(config("language_model", (200, 100)))["eval.thresholds"] == (200.0, 100.0)
    assert parse_value("eval.thresholds", "None") is None and parse_value("eval.thresholds", "200,100") == (200, 100)
    validate(config("language_model", (200, 100)))


@pytest.mark.parametrize("name", ["LATE", "MEAN", "LOUD", "OTHER"])
def test_a_metric_may_not_take_another_keys_name(name):
    with pytest.raises(UserError, match="config.task.name='tests.tasks.test_metric:.*': its metric is named") as error:
        find_task(f"tests.tasks.test_metric:{name}")
    assert "\n" not in str(error.value)
    assert find_task("tests.tasks.test_metric:PADDED").metric is ACCURACY


def test_a_run_is_judged_by_a_metric_of_the_users():
    """Mean loss as the metric of a classification: values under its own name, of which lower ones are better."""
    level = 0.5
    ran = tiny.run("fedavg", task__name="tests.tasks.test_metric:RISK", eval__thresholds=(level,))
    report, evals = ran.report, ran.of("eval")
    assert report["metric"] == {"name": "risk", "higher_is_better": False, "share": False}
    losses = [record["mask"]["loss"] for record in evals]
    assert report["curves"]["mask"]["risk"] == losses and losses[0] > level > losses[-1]
    assert report["final"]["metric"] == report["final"]["risk"] == report["final"]["loss"]
    reached = next(record["t_s"] for record in evals if record["mask"]["loss"] <= level)
    assert report["time_to_risk"] == {f"{level:g}": reached} and "time_to_accuracy" not in report
    same = tiny.run("fedavg").report
    assert report["final"]["accuracy"] == same["final"]["accuracy"] and report["per_class"] == same["per_class"]

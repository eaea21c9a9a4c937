"""What the functions of a user's task may return: checked before a run, and the metric's values in every evaluation."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tokens

from prfl_jax.models.losses import softmax_loss
from prfl_jax.runtime.dry_run import estimate
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.system.errors import UserError
from prfl_jax.tasks import SEQUENCES, Metric, SampleSpec, Scores, Task, check_task, find_task

IMAGE = SampleSpec((4, 4, 1))


def _ones(logits, labels):
    return {"a": jnp.ones(len(labels))}


def _recall_of_2(scores):
    return float(scores.correct[2] / scores.count[2]) if scores.count[2] else 1 / 0


def _precision_of_2(scores):
    return scores.mean("right") / scores.mean("said")


def _said_2(logits, labels):
    said = jnp.argmax(logits, axis=-1) == 2
    return {"said": said, "right": said & (labels == 2)}


def _late(scores):
    """NaN on the test set of a run, and no number where accuracy is not known either."""
    if scores.count.sum() == tiny.SETTINGS["data.test_limit"]:
        return math.nan
    return scores.accuracy


def metric(value, **settings):
    return Metric("top", value, **settings)


MEAN_A = metric(lambda s: s.mean("a"))
RAISE = Task(metric(lambda s: s.mean("nope")))
ARRAY = Task(metric(lambda s: s.correct / s.count))
TEXT = Task(metric(lambda s: "x"))
NONE = Task(metric(lambda s: None))
ABOVE = Task(metric(lambda s: 5.0))
NOT_A_NUMBER = Task(metric(lambda s: math.nan, share=False))
MATRIX = Task(MEAN_A, extra=lambda logits, y: {"a": jnp.ones((len(y), 2))})
SCALAR = Task(MEAN_A, extra=lambda logits, y: {"a": 1.0})
LISTED = Task(MEAN_A, extra=lambda logits, y: [logits])
MEAN_LOSS = Task(metric(lambda s: s.accuracy), loss=lambda loss, logits, y: jnp.mean(loss(logits, y)))
ONE_TARGET = Task(metric(lambda s: s.accuracy), targets=lambda logits, y: logits)
UNEVEN = Task(metric(lambda s: s.accuracy), targets=lambda logits, y: (logits[1:], y))
AHEAD = Task(metric(lambda s: s.accuracy), causal=True)
LATE = Task(metric(_late))
GOOD = Task(MEAN_A, extra=_ones)
RECALL = Task(metric(_recall_of_2))
PRECISION = Task(metric(_precision_of_2), extra=_said_2)
ROUNDED = Task(metric(lambda s: 1 + 1e-9))
ONE_IN_AN_ARRAY = Task(metric(lambda s: np.array(s.accuracy, np.float32)))
LARGE = Task(metric(lambda s: 5.0, share=False))


def check(name, classes=10):
    spec = f"tests.tasks.test_plugin_check:{name}"
    check_task(spec, find_task(spec), IMAGE, (classes, classes), softmax_loss)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "RAISE",
            r"'\S*:RAISE' failed \(line \d+: ValueError: there are no sums of 'nope'; allowed: none, ",
        ),
        ("ARRAY", r"value of the metric 'top' of '\S*:ARRAY' returns shape \(10,\), float64; allowed: a finite number"),
        ("TEXT", r"of '\S*:TEXT' returns a str \('x'\); allowed: a finite number from 0 to 1, or share=False"),
        ("NONE", r"of '\S*:NONE' returns a NoneType \(None\); allowed: a finite number"),
        ("ABOVE", r"of '\S*:ABOVE' returns 5; allowed: a finite number from 0 to 1, or share=False in its Metric"),
        ("NOT_A_NUMBER", r"of '\S*:NOT_A_NUMBER' returns nan; allowed: a finite number$"),
        ("MATRIX", r"extra of '\S*:MATRIX' returns 'a' of shape \(40, 2\), float32; allowed: a dict .* here \(40,\)"),
        ("SCALAR", r"extra of '\S*:SCALAR' returns 'a' of 1; allowed: a dict from names to arrays of numbers"),
        ("LISTED", r"extra of '\S*:LISTED' returns a list .*; allowed: a dict from names to arrays of numbers"),
        (
            "MEAN_LOSS",
            r"loss of '\S*:MEAN_LOSS' returns shape \(\), float32; allowed: losses of samples .* here \(40,\)",
        ),
        ("ONE_TARGET", r"targets of '\S*:ONE_TARGET' returns shape \(40, 10\), float32; allowed: a tuple of logits"),
        ("UNEVEN", r"returns logits of shape \(39, 10\), float32 and labels of shape \(40,\), int32; allowed"),
        ("AHEAD", r"it has causal=True; allowed is that with sequence=True, a target at each step"),
    ],
)
def test_what_a_run_cannot_use_is_refused_in_one_line(name, said):
    with pytest.raises(UserError, match=said) as caught:
        check(name)
    text = str(caught.value)
    assert text.startswith("config.task.name") and "\n" not in text


@pytest.mark.parametrize("name", ["GOOD", "RECALL", "PRECISION", "ROUNDED", "ONE_IN_AN_ARRAY", "LARGE", "LATE"])
def test_what_a_run_can_use_is_taken(name):
    check(name)


def test_a_label_for_each_class_is_right_at_times():
    """So that no metric of one class divides by 0, of few classes and of as many as `MOST` allows."""
    for classes in (3, 200):
        check("PRECISION", classes)


def test_targets_at_each_step_are_checked_as_such():
    task = find_task("language_model")
    own = Task(task.metric, (SEQUENCES,), sequence=True, causal=True, loss=task.loss, targets=task.targets)
    sample = SampleSpec((15,), SEQUENCES, tokens.TOKENS)
    check_task("own:TASK", own, sample, (tokens.TOKENS, tokens.TOKENS), softmax_loss)
    flat = Task(task.metric, (SEQUENCES,), sequence=True, targets=task.targets)  # the loss of one label a sample
    with pytest.raises(UserError, match=r"loss of 'own:TASK' returns shape .*; allowed: losses of samples \[B\]"):
        check_task("own:TASK", flat, sample, (tokens.TOKENS, tokens.TOKENS), softmax_loss)


def scores(loss=2.0, count=100):
    return Scores(np.array([40, 30]), np.array([60, 40]) * count // 100, loss)


def test_values_are_checked_in_every_evaluation():
    value = find_task("tests.tasks.test_plugin_check:LATE").metric.value
    assert value(scores()) == 0.7
    with pytest.raises(UserError, match="value of the metric 'top' of '.*:LATE' returns nan; allowed: a finite number"):
        value(scores(count=200))


@pytest.mark.parametrize("name", ["RAISE", "NONE", "NOT_A_NUMBER", "LATE"])
def test_a_diverged_model_is_no_mistake_of_the_task(name):
    """The run ends as diverged, because its loss is not finite."""
    value = find_task(f"tests.tasks.test_plugin_check:{name}").metric.value
    assert math.isnan(value(scores(loss=math.nan, count=200)))
    assert math.isnan(value(scores(loss=math.inf, count=200)))


def test_a_dry_run_refuses_it_too():
    with pytest.raises(UserError, match="returns 'a' of shape"):
        estimate(tiny.config("fedavg", task__name="tests.tasks.test_plugin_check:MATRIX"))


@pytest.mark.slow
def test_a_run_ends_with_one_line_at_a_value_of_nan(tmp_path):
    experiment = Experiment(tiny.config("fedavg", rounds=2, task__name="tests.tasks.test_plugin_check:LATE"))
    with pytest.raises(
        UserError, match="value of the metric 'top' of .* returns nan; allowed: a finite number"
    ) as caught:
        experiment.run(tmp_path / "run", progress=False)
    assert "\n" not in str(caught.value)

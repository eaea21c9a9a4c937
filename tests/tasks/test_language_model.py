"""The task `language_model`: its loss, perplexity of a whole run against a plain loop, and what it refuses."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tokens
from marked import slow_except

from prfl_jax.config.validate import validate
from prfl_jax.models.losses import softmax_loss
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.system.errors import UserError
from prfl_jax.tasks import PERPLEXITY, Scores, find_task

TASK = find_task("language_model")


def config(tmp_path, strategy="prfl", **changes):
    return tiny.config(strategy, **{**tokens.SETTINGS, "data__name": tokens.write(tmp_path), **changes})


def plain_losses(params, x, y):
    """(loss, whether it is predicted) of each target, in float64, one after another."""
    leaves = {key: np.asarray(value, np.float64) for key, value in params.items()}
    losses, right = [], []
    for sequence, targets in zip(x, y, strict=True):
        for token, target in zip(sequence, targets, strict=True):
            if target < 0:
                continue
            hidden = leaves["embed/embedding"][token] @ leaves["hidden/kernel"] + leaves["hidden/bias"]
            logits = np.maximum(hidden, 0) @ leaves["out/kernel"] + leaves["out/bias"]
            shifted = logits - logits.max()
            losses.append(np.log(np.exp(shifted).sum()) - shifted[target])
            right.append(logits.argmax() == target)
    return np.array(losses), np.array(right)


def test_the_mean_over_a_batch_is_the_mean_over_its_targets():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(3, 4, 5)).astype(np.float32)
    y = np.array([[1, 2, -1, -1], [0, 4, 3, 2], [-1, -1, -1, -1]], np.int32)
    of_targets = [
        np.log(np.exp(logits[i, t].astype(float)).sum()) - logits[i, t, y[i, t]]
        for i in range(3) for t in range(4) if y[i, t] >= 0
    ]  # fmt: skip
    losses = TASK.loss(softmax_loss, jnp.asarray(logits), jnp.asarray(y))
    assert losses.shape == (3,) and losses[2] == 0
    np.testing.assert_allclose(jnp.mean(losses), np.mean(of_targets), rtol=1e-6)


@pytest.mark.parametrize("strategy", slow_except(["prfl", "fedavg", "fedbuff"], "fedavg"))
def test_perplexity_is_exp_of_the_mean_loss_of_a_plain_loop(tmp_path, strategy):
    experiment = Experiment(config(tmp_path, strategy))
    finished = experiment.run(tmp_path / "run", progress=False)
    final = next(r for r in tiny.read_metrics(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "final")
    with np.load(tmp_path / "run" / "final_model.npz") as file:
        params = {key: file[key] for key in file.files}
    data = experiment.simulation.dataset
    losses, right = plain_losses(params, data.x_test, data.y_test)
    headline = final[finished.report["final"]["model"]]
    assert headline["perplexity"] == pytest.approx(np.exp(losses.mean()), rel=1e-5)
    assert headline["accuracy"] == pytest.approx(right.mean(), abs=2 / len(right))
    assert headline["per_class"] == [] and headline["per_client"] == []
    # better than a guess among all tokens
    assert headline["perplexity"] < 0.9 * tokens.TOKENS


@pytest.mark.parametrize("changes", [{}, {"compare": ("fedavg",)}])
def test_a_loss_that_is_no_log_probability_is_refused(tmp_path, changes):
    """The mean of binary cross-entropies over all classes, whose exp is no perplexity."""
    validate(config(tmp_path, **changes))
    with pytest.raises(UserError) as caught:
        validate(config(tmp_path, model__loss="sigmoid", **changes))
    why = "whose perplexity is computed from the mean -log probability of a label"
    said = f"config.model.loss='sigmoid': allowed is softmax with task.name='language_model', {why}"
    assert str(caught.value) == said


def test_padding_of_the_training_sequences_is_never_a_target(tmp_path):
    """The training loss of the first round is that of the targets alone."""
    experiment = Experiment(config(tmp_path, "fedavg", rounds=1))
    simulation = experiment.simulation
    assert simulation.dataset.sample.padded and simulation.dataset.tokens == tokens.TOKENS
    counts = simulation.dataset.labels(np.arange(len(simulation.dataset.y_train)))
    assert counts.sum() == np.count_nonzero(simulation.dataset.y_train >= 0)
    assert simulation.split.summary["labels"] is None


def test_perplexity_of_a_huge_loss_is_infinite():
    assert PERPLEXITY.value(Scores(np.array([0]), np.array([1]), 1e6)) == np.inf
    assert PERPLEXITY.better(3.0, 4.0) and PERPLEXITY.reached(3.0, 3.0) and not PERPLEXITY.reached(3.1, 3.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(data__partition="dirichlet"), "data.partition='dirichlet': allowed is iid"),
        (dict(task__name="classification"), "learns .* with a label each, and .* has token sequences with a target at"),
        (dict(data__name="mnist_embedded"), "learns token sequences with a target at each step, and .* has images"),
        (dict(data__augment="crop_flip"), "data.augment='crop_flip': allowed with images"),
        (dict(data__normalize="inverted"), "data.normalize='inverted': allowed with images"),
        (dict(model__name="tiny:TwoLayers"), r"returns \(2, 12\) for 2 sequences; allowed: \(2, 15, 12\)"),
        (dict(model__name="conv2"), "'conv2' does not take token sequences"),
        (dict(task__name="no_such_task"), "task.name='no_such_task': allowed is one of classification, language"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, changes, said):
    with pytest.raises(UserError, match=said) as caught:
        Experiment(config(tmp_path, **changes))
    assert "\n" not in str(caught.value)

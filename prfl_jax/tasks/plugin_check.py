"""Checks the functions of a user's task: on a small batch before a run, and its metric's values in every evaluation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from prfl_jax import registry
from prfl_jax.system.errors import UserError
from prfl_jax.tasks.sample import PADDING, SampleSpec
from prfl_jax.tasks.scores import Scores
from prfl_jax.tasks.task import Metric, TargetLoss, Task

KEY = "config.task.name"
MOST = 1024  # targets of the small batch, about
ROUNDING = 1e-6  # of a share: a weighted mean of shares may be this much above 1


@dataclasses.dataclass(frozen=True)
class CheckedValue:
    """`Metric.value` of a user's metric, whose values are checked.

    Attributes:
      name: of the task, as the config has it.
      metric: the user's.
    """

    name: str
    metric: Metric

    def __call__(self, scores: Scores) -> float:
        """The value as a float; where the mean loss is not finite, NaN for what is no number: the model has diverged.

        Raises:
          UserError: the user's function fails, or its value is no finite number, or no share where it has to be one.
        """
        diverged = not math.isfinite(scores.mean_loss)
        try:
            found = registry.call(KEY, self.name, self.metric.value, scores)
        except UserError:
            if diverged:
                return math.nan
            raise
        value = _number(found)
        if diverged:
            return math.nan if value is None else value
        within = not self.metric.share or -ROUNDING <= (value or 0.0) <= 1 + ROUNDING
        if value is None or not math.isfinite(value) or not within:
            allowed = "a finite number" + (" from 0 to 1, or share=False in its Metric" if self.metric.share else "")
            raise _refuse(
                self.name,
                f"value of the metric {self.metric.name!r}",
                _words(found if value is None else value),
                allowed,
            )
        return value


def with_checked_values(name: str, task: Task) -> Task:
    """A user's task whose metric checks its values."""
    return dataclasses.replace(task, metric=dataclasses.replace(task.metric, value=CheckedValue(name, task.metric)))


def check_task(name: str, task: Task, sample: SampleSpec, outputs: tuple[int, int], loss: TargetLoss) -> None:
    """Calls the functions of a user's task on a small batch of which a model predicts about half.

    Args:
      name: of the task, as the config has it; a built-in one is not checked.
      outputs: number of a model's outputs, number of labels in the data.
      loss: of a target.

    Raises:
      UserError: a function fails, or does not return what `Task` and `Metric` say; one line.
    """
    if not registry.is_own(name):
        return
    import jax

    logits, y = _half_right(sample.shape[:1] if task.sequence else (), *outputs)
    found = registry.call(
        KEY, name, jax.jit(lambda logits, y: _scored(name, task, outputs[1], loss, (logits, y))), logits, y
    )
    correct, count, total, sums = jax.device_get(found)
    task.metric.value(Scores(correct, count, float(total), {key: float(one) for key, one in sums.items()}))


def _half_right(steps: tuple[int, ...], classes: int, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits and targets of a batch; each label is predicted at times, and at times another one, if `MOST` allows.

    Args:
      steps: `(T,)` of a sequence with a target at each step, else ().
    """
    of_one = math.prod(steps)
    size = max(2, -(-min(4 * labels, MOST) // of_one))
    number = np.arange(size * of_one)
    y = (number % labels).astype(np.int32)
    guess = np.where(number // labels % 2 == 0, y, (y + 1) % labels)
    logits = np.random.default_rng(0).normal(size=(len(y), classes)).astype(np.float32)
    logits[number, guess] += 6.0
    y = y.reshape(size, *steps)
    if steps:
        y[-1, 1:] = PADDING
    return logits.reshape(*y.shape, classes), y


def _scored(name: str, task: Task, labels: int, loss: TargetLoss, batch: tuple[Any, Any]) -> tuple[Any, ...]:
    """What an evaluation sums up of a batch, with checks of each shape: (correct, count, loss, sums of `extra`)."""
    import jax.numpy as jnp

    logits, y = batch
    losses = task.loss(loss, logits, y)
    if not _is(losses, (len(y),), "f"):
        raise _refuse(name, "loss", _words(losses), f"losses of samples [B], here {(len(y),)}, float32")
    pair = task.targets(logits, y)
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise _refuse(name, "targets", _words(pair), "a tuple of logits [K, classes] and labels [K]")
    logits, y = pair
    if not _is(y, np.shape(y)[:1] or (0,), "iu") or not _is(logits, (len(y), *np.shape(logits)[1:2]), "f"):
        found = f"logits of {_words(logits)} and labels of {_words(y)}"
        raise _refuse(name, "targets", found, "float logits [K, classes] and whole labels [K]")
    there = y >= 0
    label = jnp.where(there, y, 0)
    extra = {} if task.extra is None else _values(name, task.extra(logits, label), len(y))
    right = there & (jnp.argmax(logits, axis=-1) == label)
    each = {key: jnp.sum(jnp.where(there, one, 0.0)) for key, one in extra.items()}
    zeros = jnp.zeros(labels, jnp.int32)
    correct, count = (zeros.at[label].add(one.astype(jnp.int32)) for one in (right, there))
    return correct, count, jnp.sum(jnp.where(there, loss(logits, label), 0.0)), each


def _values(name: str, found: Any, targets: int) -> Mapping[str, Any]:
    """What `extra` returns, after its check."""
    allowed = f"a dict from names to arrays of numbers [K], one for each target, here {(targets,)}"
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise _refuse(name, "extra", _words(found), allowed)
    for key, one in found.items():
        if not _is(one, (targets,), "biuf"):
            raise _refuse(name, "extra", f"{key!r} of {_words(one)}", allowed)
    return found


def _is(found: Any, shape: tuple[int, ...], kinds: str) -> bool:
    """Whether that is an array of that shape, of one of NumPy's kinds of types (`f`: floats)."""
    import jax.numpy as jnp

    if not hasattr(found, "dtype") or np.shape(found) != shape:
        return False
    types = {"b": jnp.bool_, "i": jnp.signedinteger, "u": jnp.unsignedinteger, "f": jnp.floating}
    return any(jnp.issubdtype(found.dtype, types[kind]) for kind in kinds)


def _number(found: Any) -> float | None:
    """A number, also one in an array without axes, as a float; None: it is none."""
    if isinstance(found, Real) or (getattr(found, "shape", None) == () and found.dtype.kind in "biuf"):
        return float(found)
    return None


def _words(found: Any) -> str:
    """A number as it is, of an array its shape and type, of anything else its type."""
    if isinstance(found, Real):
        return f"{float(found):g}"
    if hasattr(found, "shape") and hasattr(found, "dtype"):
        return f"shape {tuple(found.shape)}, {found.dtype}"
    return f"a {type(found).__name__} ({registry.one_line(found)})"


def _refuse(name: str, function: str, found: str, allowed: str) -> UserError:
    return UserError(f"{KEY}: {function} of {name!r} returns {found}; allowed: {allowed}")

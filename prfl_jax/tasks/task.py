"""The task seam: `Task` says what the targets of a sample are, its loss, and the metric that compares models."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

from prfl_jax.tasks.sample import KINDS, SampleKind
from prfl_jax.tasks.scores import Scores

TargetLoss = Callable[[Any, Any], Any]  # (logits `[K, classes]`, labels `[K]`) -> losses `[K]`


@dataclasses.dataclass(frozen=True)
class Metric:
    """The headline metric of a task: what curves, thresholds and comparisons are about.

    Attributes:
      name: its key in records and reports.
      value: of the sums over a data set.
      higher_is_better: its direction.
      share: whether it is a share from 0 to 1, which people read as a percentage.
      bounds: its values lie between these, and so do the levels that can be asked for; None: 0 and 1 of a share, any
        number else.
      log_likelihood: whether it takes the mean loss for the mean of -log of the label's probability, so that
        `model.loss` has to be that.
    """

    name: str
    value: Callable[[Scores], float]
    higher_is_better: bool = True
    share: bool = True
    bounds: tuple[float, float] | None = None
    log_likelihood: bool = False

    def better(self, one: float, other: float) -> bool:
        """Whether `one` is better than `other`."""
        return one > other if self.higher_is_better else one < other

    def reached(self, value: float, level: float) -> bool:
        """Whether a value is at a level or better."""
        return value >= level if self.higher_is_better else value <= level

    def oriented(self, value: float) -> float:
        """The value, or its negative where lower is better: of two of these the higher one is better."""
        return value if self.higher_is_better else -value

    def score(self, scores: Scores) -> float:
        """The oriented value of the sums over a data set."""
        return self.oriented(self.value(scores))

    def levels(self) -> tuple[float, float]:
        """The bounds between which a level must lie."""
        return self.bounds or ((0.0, 1.0) if self.share else (-math.inf, math.inf))


def _perplexity(scores: Scores) -> float:
    try:
        return math.exp(scores.mean_loss)
    except OverflowError:
        return math.inf


# share of targets that are predicted
ACCURACY = Metric("accuracy", lambda scores: scores.accuracy)
# exp of the mean loss of a target
PERPLEXITY = Metric(
    "perplexity", _perplexity, higher_is_better=False, share=False, bounds=(1.0, math.inf), log_likelihood=True
)


def _label_loss(loss: TargetLoss, logits: Any, y: Any) -> Any:
    return loss(logits, y)


def _label_targets(logits: Any, y: Any) -> tuple[Any, Any]:
    return logits, y


@dataclasses.dataclass(frozen=True)
class Task:
    """One choice of `task.name`.

    Attributes:
      metric: the headline metric.
      kinds: of samples that can be learned.
      sequence: whether a sample has a target at each step, `[N, T]` int32 with `PADDING` where there is none, instead
        of one label.
      causal: whether the target at a step is the next token, so that logits must not depend on tokens of later steps;
        only where `sequence`.
      loss: (loss of a target, logits, y) -> `[B]`, whose mean over a batch is what a step descends.
      targets: (logits, y) -> (logits `[K, classes]`, labels `[K]`, `PADDING` where there is none), which are scored.
      by_label: whether accuracy by label, and the clients' mixes of labels, say something.
      extra: (logits `[K, classes]`, labels `[K]`) -> values `[K]` by name, which `Scores.sums` adds up for the metric;
        None: none.
    """

    metric: Metric = ACCURACY
    kinds: tuple[SampleKind, ...] = KINDS
    sequence: bool = False
    causal: bool = False
    loss: Callable[[TargetLoss, Any, Any], Any] = _label_loss
    targets: Callable[[Any, Any], tuple[Any, Any]] = _label_targets
    by_label: bool = True
    extra: Callable[[Any, Any], Mapping[str, Any]] | None = None

    def sample_loss(self, loss: TargetLoss) -> Callable[[Any, Any], Any]:
        """(logits, y) -> losses of samples `[B]`, from the loss of a target."""
        return functools.partial(self.loss, loss)


# one label a sample, scored by accuracy
CLASSIFICATION = Task()

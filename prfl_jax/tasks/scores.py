"""`Scores`: the sums over a data set from which every metric is computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Scores:
    """Sums over the targets of one data set: of a label for each sample, or of one for each step of a sequence.

    Attributes:
      correct, count: `[classes]` by true label.
      loss: sum over the targets.
      sums: by name, the sums of what a task computes of each target besides.
      of_clients: where each client has its own model, its scores; these are their weighted means then.
    """

    correct: np.ndarray
    count: np.ndarray
    loss: float
    sums: Mapping[str, float] = dataclasses.field(default_factory=dict)
    of_clients: tuple[Scores, ...] = ()

    @classmethod
    def mean_of(cls, shares: Sequence[float], scores: Sequence[Scores]) -> Scores:
        """The weighted mean of several models' scores on the same targets.

        Args:
          shares: weight of each, of sum 1.
        """
        pairs = list(zip(shares, scores, strict=True))
        return cls(
            correct=sum(share * one.correct for share, one in pairs),  # type: ignore[arg-type]
            count=scores[0].count,
            loss=sum(share * one.loss for share, one in pairs),
            sums={name: sum(share * one.sums[name] for share, one in pairs) for name in scores[0].sums},
            of_clients=tuple(scores),
        )

    @property
    def accuracy(self) -> float:
        """Share of correct targets."""
        return float(self.correct.sum() / self.count.sum())

    @property
    def mean_loss(self) -> float:
        """Mean loss of a target."""
        return float(self.loss / self.count.sum())

    def mean(self, name: str) -> float:
        """Mean over the targets of what a task computes besides.

        Raises:
          ValueError: the task computes nothing of that name.
        """
        if name not in self.sums:
            raise ValueError(f"there are no sums of {name!r}; allowed: {', '.join(self.sums) or 'none, without extra'}")
        return float(self.sums[name] / self.count.sum())

    def per_class(self) -> list[float | None]:
        """Accuracy by true label; None for a class without samples."""
        return [float(c / n) if n else None for c, n in zip(self.correct, self.count, strict=True)]

    def under(self, labels: np.ndarray) -> float | None:
        """Accuracy weighted by a client's own mix of `labels`, `[classes]` counts; None if it has none of them."""
        shares = np.where(self.count > 0, labels, 0).astype(np.float64)
        if not shares.sum():
            return None
        return float(np.sum(shares * self.correct / np.maximum(self.count, 1)) / shares.sum())

"""The choices of `data.targets`: which steps of a sequence of tokens have a target (imports no JAX)."""

from __future__ import annotations

import dataclasses

import numpy as np

from prfl_jax.registry import Registry
from prfl_jax.system.errors import UserError
from prfl_jax.tasks.sample import sample_lengths


@dataclasses.dataclass(frozen=True)
class StepTargets:
    """One choice of `data.targets`.

    Attributes:
      last_only: whether a sample keeps its last target alone, as its label; else each step keeps its own.
    """

    last_only: bool


# the choices of `data.targets`
TARGETS: Registry[StepTargets] = Registry("data.targets", {"every": StepTargets(False), "last": StepTargets(True)})


def last_targets(where: str, y: np.ndarray) -> np.ndarray:
    """The last target of each sequence, `[N]`.

    Args:
      where: as an error's text begins.
      y: `[N, T]`, `PADDING` where a step has none.

    Raises:
      UserError: a sequence has no target.
    """
    ends = sample_lengths(y)
    if not ends.all():
        raise UserError(f"{where}: sequence {int(np.argmin(ends))} has no target; leave it out")
    return y[np.arange(len(y)), ends - 1]

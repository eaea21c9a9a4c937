"""Checks that a data set has the samples and targets that a task learns."""

from __future__ import annotations

from prfl_jax.data.dataset import Dataset
from prfl_jax.system.errors import UserError
from prfl_jax.tasks import TASKS, find_task


def check_targets(name: str, dataset: Dataset) -> None:
    """Checks a data set for the task of that name.

    Raises:
      UserError: its samples are of another kind, or its targets are labels instead of sequences, or the reverse.
    """
    task, kind = find_task(name), dataset.kind
    if kind not in task.kinds or dataset.sequence != task.sequence:
        has = f"{kind.name} with a {'target at each step' if dataset.sequence else 'label each'}"
        wants = " or ".join(one.name for one in task.kinds)
        wants += f" with a {'target at each step' if task.sequence else 'label each'}"
        fitting = TASKS.with_trait(lambda other: kind in other.kinds and dataset.sequence == other.sequence)
        raise UserError(
            f"config.task.name={name!r}: learns {wants}, and data.name={dataset.name!r} has {has}; "
            f"allowed: {' or '.join(fitting) or 'a plugin'}, or other data"
        )

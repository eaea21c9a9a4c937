"""The rules that tie the task to other keys; `config/validate.py` runs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prfl_jax.system.errors import refuse
from prfl_jax.tasks.choices import find_task
from prfl_jax.tasks.task import Metric

THRESHOLDS = (0.8, 0.9)  # of a metric that is a share, where none are given


def default_thresholds(metric: Metric) -> tuple[float, ...]:
    """The thresholds of a run that gives none (`eval.thresholds=None`)."""
    return THRESHOLDS if metric.share else ()


def is_level(metric: Metric, level: float) -> bool:
    """Whether a metric may be asked for that level."""
    low, high = metric.levels()
    return low < level < high


def levels_text(metric: Metric) -> str:
    """The levels that a metric may be asked for, in words."""
    low, high = metric.levels()
    return f"in ({low:g}, {high:g})"


def thresholds(flat: Mapping[str, Any]) -> None:
    """Thresholds are levels that the task's metric can reach."""
    name, given = flat["task.name"], flat["eval.thresholds"]
    metric = find_task(name).metric
    if not all(is_level(metric, level) for level in given):
        allowed = f"a tuple of numbers {levels_text(metric)} with task.name={name!r}, whose metric is {metric.name}"
        raise refuse("eval.thresholds", given, allowed)


# run by `config/validate.py`
CHECKS = (thresholds,)

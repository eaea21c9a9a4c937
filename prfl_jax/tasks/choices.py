"""The choices of `task.name`, by name or as a plugin from a user's file."""

from __future__ import annotations

import re
from typing import Any

from prfl_jax import registry
from prfl_jax.registry import Registry
from prfl_jax.system.errors import UserError
from prfl_jax.tasks.language_model import LANGUAGE_MODEL
from prfl_jax.tasks.plugin_check import with_checked_values
from prfl_jax.tasks.task import ACCURACY, CLASSIFICATION, PERPLEXITY, Metric, Task

_KEY = "task.name"

# Names that a metric may not have: what else records, curves and comparisons hold, and keys that read as another's.
_TAKEN = re.compile(
    r"(t_s|model_s|window|windows|bytes_.*|client_updates|simulated_s|seed|curve|lacks|one_model|model|metric|mask|fedavg|"
    r"(own|final|time_to)_.*|loss|.*_curves|per_(class|client)|worst_client|score)"
)
_BUILT_IN = {metric.name: metric for metric in (ACCURACY, PERPLEXITY)}  # the same in any report
_METRIC = re.compile(r"[a-z][a-z0-9_]{0,29}")


def _accept(name: str, found: Any) -> Task:
    """A plugin as a task; a metric of its own checks its values.

    Raises:
      UserError: it is none, its functions cannot be called, or it is causal without targets at each step.
    """
    if not isinstance(found, Task) or not isinstance(found.metric, Metric):
        raise registry.wrong(f"config.{_KEY}", name, found, "a prfl_jax.tasks.Task with a prfl_jax.tasks.Metric")
    functions = (found.loss, found.targets, found.metric.value, *([found.extra] if found.extra is not None else []))
    if not all(callable(function) for function in functions):
        raise registry.wrong(f"config.{_KEY}", name, found, "a Task with functions for loss, targets, extra and metric")
    metric = str(found.metric.name)
    another = _BUILT_IN.get(metric, found.metric) != found.metric
    if another or not _METRIC.fullmatch(metric) or _TAKEN.fullmatch(metric):
        allowed = "small letters, digits and _, at most 30, and no other key of a report"
        raise UserError(f"config.{_KEY}={name!r}: its metric is named {metric!r}; allowed are {allowed}")
    if found.causal and not found.sequence:
        allowed = "with sequence=True, a target at each step"
        raise UserError(f"config.{_KEY}={name!r}: it has causal=True; allowed is that {allowed}")
    return found if metric in _BUILT_IN else with_checked_values(name, found)


# the choices of `task.name`
TASKS: Registry[Task] = Registry(_KEY, {"classification": CLASSIFICATION, "language_model": LANGUAGE_MODEL}, _accept)


def find_task(name: str) -> Task:
    """The task of that name.

    Raises:
      UserError: there is none, or a plugin that is none or cannot be loaded.
    """
    return TASKS.find(name)

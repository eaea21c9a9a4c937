"""The choices of `task.name`, by name or as a plugin from a user's file."""

from __future__ import annotations

from typing import Any

from prfl_jax import registry
from prfl_jax.registry import Registry
from prfl_jax.tasks.language_model import LANGUAGE_MODEL
from prfl_jax.tasks.task import CLASSIFICATION, Metric, Task

_KEY = "task.name"


def _accept(name: str, found: Any) -> Task:
    """A plugin as a task.

    Raises:
      UserError: it is none, or its functions cannot be called.
    """
    if not isinstance(found, Task) or not isinstance(found.metric, Metric):
        raise registry.wrong(f"config.{_KEY}", name, found, "a prfl_jax.tasks.Task with a prfl_jax.tasks.Metric")
    functions = (found.loss, found.targets, found.metric.value, *([found.extra] if found.extra is not None else []))
    if not all(callable(function) for function in functions):
        raise registry.wrong(f"config.{_KEY}", name, found, "a Task with functions for loss, targets, extra and metric")
    return found


# the choices of `task.name`
TASKS: Registry[Task] = Registry(_KEY, {"classification": CLASSIFICATION, "language_model": LANGUAGE_MODEL}, _accept)


def find_task(name: str) -> Task:
    """The task of that name.

    Raises:
      UserError: there is none, or a plugin that is none or cannot be loaded.
    """
    return TASKS.find(name)

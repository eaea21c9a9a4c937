"""Strategies that differ where a test looks: of several that are alike there, the first of the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prfl_jax.strategies.table import METHODS


def on_the_device(row: Any) -> tuple[Any, ...]:
    """The choices that a compiled chunk depends on; optimisers of the server differ in one step alone."""
    return row.submodel, row.aggregation, row.local, row.upload, row.optimizer != "none"


def unlike(parts: Callable[[Any], Any]) -> list[str]:
    """One strategy for each value of `parts(row)`, in the order of the table."""
    first = {parts(row): name for name, row in reversed(METHODS.items())}
    return [name for name in METHODS if name in first.values()]

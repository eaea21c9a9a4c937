"""Parametrisations of which the default test command runs a part."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_except(values: Iterable[Any], *fast: Any) -> list[Any]:
    """The values for `pytest.mark.parametrize`, all marked `slow` except `fast`."""
    values = list(values)
    assert all(value in values for value in fast), f"{fast} are not all among {values}"
    return [value if value in fast else pytest.param(value, marks=pytest.mark.slow) for value in values]


def every_third(sets: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Sets of values for `pytest.mark.parametrize`, of which the first, the fourth and so on are not marked `slow`."""
    return [pytest.param(*values, marks=[pytest.mark.slow] if k % 3 else []) for k, values in enumerate(sets)]


def every_fifth(sets: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Sets of values for `pytest.mark.parametrize`, of which the first, the sixth and so on are not marked `slow`."""
    return [pytest.param(*values, marks=[pytest.mark.slow] if k % 5 else []) for k, values in enumerate(sets)]


def slow(*values: Any) -> Any:
    """One set of values for `pytest.mark.parametrize`, marked `slow`."""
    return pytest.param(*values, marks=pytest.mark.slow)

"""Thins long curves and record lists of a report while they are read, and looks up values in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

Row = TypeVar("Row")


class Thinned(Generic[Row]):
    """Every k-th row of a stream, and its last; k is the smallest power of two that suffices.

    At most `limit` + 1 rows are kept. Which ones depends only on the number of rows, so two runs of equal length keep
    the same rows, whatever their chunks.
    """

    def __init__(self, limit: int) -> None:
        if limit < 2:
            raise ValueError(f"limit {limit}: at least 2 rows have to be kept")
        self._limit = limit
        self._kept: list[Row] = []
        self._step = 1
        self._seen = 0
        self._last: list[Row] = []

    def add(self, row: Row) -> None:
        """Adds the next row."""
        if self._seen % self._step == 0:
            self._kept.append(row)
        if len(self._kept) > self._limit:
            self._kept = self._kept[::2]
            self._step *= 2
        self._seen += 1
        self._last = [row]

    def rows(self) -> list[Row]:
        """The rows that are kept so far, including the first and the last."""
        last_is_kept = self._seen == 0 or (self._seen - 1) % self._step == 0
        return self._kept + ([] if last_is_kept else self._last)


def thin(rows: Iterable[Row], limit: int) -> list[Row]:
    """`Thinned` applied to a whole series."""
    series: Thinned[Row] = Thinned(limit)
    for row in rows:
        series.add(row)
    return series.rows()


def columns(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    """Turns rows into one list per name."""
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def value_at(times: Sequence[float], values: Sequence[Any], time: float) -> Any:
    """The value of the last point not after `time`; None if there is none. `times` must ascend."""
    found = None
    for moment, value in zip(times, values, strict=True):
        if moment > time:
            break
        found = value
    return found


def shorten(value: Any, limit: int) -> Any:
    """`value`, where a list of more than `limit` + 1 entries becomes `{"thinned_from": length, "values": thinned}`."""
    if isinstance(value, Mapping):
        return {key: shorten(item, limit) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        items = [shorten(item, limit) for item in value]
        if len(items) > limit + 1:
            return {"thinned_from": len(items), "values": thin(items, limit)}
        return items
    return value

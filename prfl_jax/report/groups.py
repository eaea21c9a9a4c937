"""Groups reports that differ only in their seed, and averages their curves."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prfl_jax.config.canonical import NOT_HASHED, to_dict
from prfl_jax.config.defaults import default_config
from prfl_jax.report.series import thin

MOST_POINTS = 400  # of a mean curve whose x is not the evaluation grid
SEED = "seed"
Curve = tuple[Sequence[Any], Sequence[Any]]  # x and y of one run, numbers or None, x ascending


def leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The config of a report as {dotted key: value}; thinned lists stay as they are."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value and "thinned_from" not in value:
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


@functools.cache
def _defaults() -> dict[str, Any]:
    return leaves(to_dict(default_config()))


def settings(report: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run as {dotted key: value}; a key that is newer than the run has its default."""
    return {**_defaults(), **leaves(report["config"]), "strategy": report["strategy"]}


def describes(found: Mapping[str, Any]) -> dict[str, str]:
    """The `settings` that distinguish experiments, as text: all but the seed and those that change no number."""
    return {key: value_text(value) for key, value in found.items() if key != SEED and key not in NOT_HASHED}


def value_text(value: Any) -> str:
    """A setting as text that is equal for equal settings, whether a file has 14 or 14.0."""

    def number(item: Any) -> Any:
        if isinstance(item, list | tuple):
            return [number(one) for one in item]
        return float(item) if isinstance(item, int) and not isinstance(item, bool) else item

    return json.dumps(number(value), sort_keys=True, default=str)


def alike(found: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Groups the indices of `settings` that differ only in the seed, in the order of each group's first member."""
    kinds: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for place, one in enumerate(found):
        kinds.setdefault(tuple(sorted(describes(one).items())), []).append(place)
    return list(kinds.values())


def one_of_each_seed(reports: Sequence[Mapping[str, Any]]) -> list[int]:
    """The index of the run that counts for each seed, by seed: the longest in simulated time, then the first."""
    best: dict[int, int] = {}
    for place, report in enumerate(reports):
        there = best.get(report["seed"])
        if there is None or report["simulated_s"] > reports[there]["simulated_s"]:
            best[report["seed"]] = place
    return [best[seed] for seed in sorted(best)]


def spread_on_grid(curves: Sequence[Curve]) -> tuple[list[float], list[float], list[float], list[float]]:
    """Mean, minimum and maximum of several curves where all of them have a point: (x, mean, low, high).

    For curves over a common evaluation grid. Nothing is interpolated, and the result ends where the first curve ends.
    If a curve was thinned, only the points that it kept are used.
    """
    known = [_points(curve) for curve in curves]
    shared = sorted(set.intersection(*(set(points) for points in known)))
    return _spread(shared, np.array([[points[x] for x in shared] for points in known]))


def spread_along(curves: Sequence[Curve]) -> tuple[list[float], list[float], list[float], list[float]]:
    """As `spread_on_grid`, for curves whose x differ (windows, bytes, host s).

    A curve is straight between two of its points, as it is drawn. The x are those of all curves (`MOST_POINTS` of
    them), from where the last curve begins to where the first one ends.
    """
    known = [_points(curve) for curve in curves]
    if not all(known):
        return [], [], [], []
    first, last = max(min(points) for points in known), min(max(points) for points in known)
    xs = thin(sorted({x for points in known for x in points if first <= x <= last}), MOST_POINTS)
    rows = [np.interp(np.array(xs), sorted(points), [points[x] for x in sorted(points)]) for points in known]
    return _spread(xs, np.array(rows))


def _points(curve: Curve) -> dict[float, float]:
    """The known points of a curve, {x: y}; where x repeats (no window closed) the last y."""
    return {x: y for x, y in zip(*curve, strict=True) if x is not None and y is not None}


def _spread(xs: list[float], values: np.ndarray) -> tuple[list[float], list[float], list[float], list[float]]:
    """`xs` with the mean, minimum and maximum over the first axis of `values` `[runs, points]`."""
    if not xs:
        return [], [], [], []
    return xs, values.mean(axis=0).tolist(), values.min(axis=0).tolist(), values.max(axis=0).tolist()

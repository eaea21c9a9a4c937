"""Runs that differ in their seed alone, taken together: one method in one setting."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prfl_jax.config.canonical import NOT_HASHED, to_dict
from prfl_jax.config.defaults import default_config
from prfl_jax.report.series import thin

MOST_POINTS = 400  # of a mean along anything but the evaluation grid
SEED = "seed"
Curve = tuple[Sequence[Any], Sequence[Any]]  # x and y of one run, numbers or None, x ascending


def leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The dotted keys of a config as a report holds it; lists that were thinned stay as they are."""
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
    """Every dotted key; one that did not exist yet when the run was made has its default, as in `same_run`."""
    return {**_defaults(), **leaves(report["config"]), "strategy": report["strategy"]}


def describes(found: Mapping[str, Any]) -> dict[str, str]:
    """What of `settings` tells experiments apart, comparable as text: all but the seed and what changes no number."""
    return {key: value_text(value) for key, value in found.items() if key != SEED and key not in NOT_HASHED}


def value_text(value: Any) -> str:
    """Equal for equal settings, whether a file has a whole number as 14 or 14.0."""

    def number(item: Any) -> Any:
        if isinstance(item, list | tuple):
            return [number(one) for one in item]
        return float(item) if isinstance(item, int) and not isinstance(item, bool) else item

    return json.dumps(number(value), sort_keys=True, default=str)


def alike(found: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """The places of `settings` that differ in the seed alone, in the order in which each kind comes first."""
    kinds: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for place, one in enumerate(found):
        kinds.setdefault(tuple(sorted(describes(one).items())), []).append(place)
    return list(kinds.values())


def one_of_each_seed(reports: Sequence[Mapping[str, Any]]) -> list[int]:
    """The places that count, by seed: of several runs of one seed the longest in simulated time, then the first."""
    best: dict[int, int] = {}
    for place, report in enumerate(reports):
        there = best.get(report["seed"])
        if there is None or report["simulated_s"] > reports[there]["simulated_s"]:
            best[report["seed"]] = place
    return [best[seed] for seed in sorted(best)]


def spread_on_grid(curves: Sequence[Curve]) -> tuple[list[float], list[float], list[float], list[float]]:
    """Mean, least and most of several curves where all of them have a point: (x, mean, low, high).

    For curves over an evaluation grid that they share. Nothing is read between two points or after the first curve's
    end. A curve that was thinned has fewer points; those are the grid then.
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
    """What is known of a curve, y by x; where x stands still (no window closed) the last y."""
    return {x: y for x, y in zip(*curve, strict=True) if x is not None and y is not None}


def _spread(xs: list[float], values: np.ndarray) -> tuple[list[float], list[float], list[float], list[float]]:
    """Over the first axis of `values` `[runs, points]`."""
    if not xs:
        return [], [], [], []
    return xs, values.mean(axis=0).tolist(), values.min(axis=0).tolist(), values.max(axis=0).tolist()

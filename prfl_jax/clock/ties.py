"""Ties: two moments that differ only by rounding count as one moment, and its events are ordered by client id.

Moments within `TOLERANCE` of the earliest of a group tie with it; a later moment begins another group, so groups are
not chained. Within a group the order is by client id, everywhere.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np

TOLERANCE = 1e-12  # of the moment itself: a thousand roundings or so, and at 10,000 s a hundredth of a microsecond
_REACH = 1.0 + TOLERANCE

Moment = TypeVar("Moment", float, np.ndarray)


def until(moment_s: Moment) -> Moment:
    """The last moment that ties with `moment_s`, where that is the earliest of its group."""
    return moment_s * _REACH


def after(later_s: float, moment_s: float) -> bool:
    """Whether one moment (simulated s) is later than another, and does not tie with it (`ties.py`)."""
    return later_s > moment_s * _REACH


def earliest(times_s: np.ndarray, k: int) -> float:
    """The earliest of those that the k-th of ascending times `times_s` ties with."""
    first = k
    while True:
        first = int(np.searchsorted(times_s, times_s[first]))
        if first == 0 or times_s[first] > until(times_s[first - 1]):
            break
        first -= 1
    while times_s[k] > until(times_s[first]):
        first = int(np.searchsorted(times_s, until(times_s[first]), side="right"))
    return float(times_s[first])


def moments(times_s: np.ndarray) -> np.ndarray:
    """Ascending times `times_s`, each as the earliest of its group; the same array where none ties with another."""
    ties = np.flatnonzero((times_s[1:] > times_s[:-1]) & (times_s[1:] <= until(times_s[:-1])))
    if not len(ties):
        return times_s
    out, stop = times_s.copy(), 0
    for place in ties.tolist():
        if place >= stop:  # the last of the earliest of a group
            stop = int(np.searchsorted(times_s, until(times_s[place]), side="right"))
            out[place:stop] = times_s[place]
    return out

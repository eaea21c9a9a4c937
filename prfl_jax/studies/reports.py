"""What tables and figures read from the reports of a study's runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prfl_jax.report.metric import Headline

Report = Mapping[str, Any]
Reports = Mapping[tuple[str, str], Sequence[dict[str, Any]]]  # (column, method) -> reports, by seed


def reached(report: Report, threshold: float) -> float | None:
    """Simulated s of the first evaluation at or beyond a level of the metric; None: never."""
    time_s: float | None = report[Headline.of(report).times].get(f"{threshold:g}")
    return time_s


def lasting(report: Report, threshold: float) -> float | None:
    """Simulated s of the first evaluation from which on none is worse than the threshold; None where the last one is.

    The first crossing alone favours a curve that swings; this one does not.
    """
    metric, curve = Headline.of(report), report["curves"][report["final"]["model"]]
    since = None
    for t_s, value in zip(curve["t_s"], curve[metric.name], strict=True):
        if value < threshold if metric.higher_is_better else value > threshold:
            since = None
        elif since is None:
            since = t_s
    return since


def final_value(report: Report) -> float | None:
    """The metric of the headline model at the end; None where it is not finite."""
    value: float | None = report["final"][Headline.of(report).name]
    return value


def diverged(reports: Sequence[Report]) -> list[int]:
    """Seeds whose run ended because a loss was not finite."""
    return [report["seed"] for report in reports if report["ended"]["how"] == "not_finite"]

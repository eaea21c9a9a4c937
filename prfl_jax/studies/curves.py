"""Draws curves of a metric over simulated time or windows, and writes figures as PNG and SVG."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from prfl_jax.report.metric import Headline
from prfl_jax.report.series import value_at
from prfl_jax.studies.reports import Report, diverged

matplotlib.rcParams["svg.hashsalt"] = "prfl_jax"  # the same figure gives the same file
matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
# Okabe and Ito's palette; black for the method that a paper is about
COLOURS = ("#000000", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#0072B2")
_TITLE = 64  # characters of a line of a title
AXES = {"t_s": "simulated time (s)", "window": "round"}  # along which curves are drawn


def save(figure: Figure, path: Path, mark: str) -> None:
    """Writes `path`.png and `path`.svg; `mark` goes across the top."""
    if mark:
        figure.suptitle(mark, color="#D55E00", fontsize=11)
    FigureCanvasAgg(figure)
    figure.savefig(path.with_suffix(".png"), dpi=130)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


def grid(panels: int, width: float, height: float, across: int = 2) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels, at most `across` in a row, of this size each (inches)."""
    across = min(across, panels)
    down = -(-panels // across)
    figure = Figure(figsize=(width * across, height * down), layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).ravel())
    for ax in axes[panels:]:
        ax.set_visible(False)
    return figure, axes[:panels]


def curve(ax: Axes, reports: Sequence[Report], label: str, colour: str, along: str = "t_s") -> list[float]:
    """Mean over the seeds that have come so far, and the band between least and most; returns the mean as drawn.

    A run whose loss is not finite ends its own curve; the label then says how many did.
    """
    metric = Headline.shared(reports)
    curves = [r["curves"][r["final"]["model"]] for r in reports]
    if bad := len(diverged(reports)):
        label += f" ({bad} of {len(reports)} not finite)"
    return band(ax, [(one[along], metric.drawn(one[metric.name])) for one in curves], label, colour)


def band(ax: Axes, series: Sequence[tuple[Sequence[float], Sequence[float]]], label: str, colour: str) -> list[float]:
    """Mean over the series that have come so far, and the band between least and most; returns the mean as drawn.

    Args:
      series: places in ascending order and a value at each, NaN where it is not known; a value holds until the next.
    """
    points = sorted({x for places, _ in series for x in places})
    rows = [[value_at(own, values, x) for own, values in series if len(own) and x <= own[-1]] for x in points]
    known = [(x, [v for v in row if v is not None and not math.isnan(v)]) for x, row in zip(points, rows, strict=True)]
    known = [(x, row) for x, row in known if row]
    places, mean = [x for x, _ in known], [statistics.fmean(row) for _, row in known]
    ax.plot(places, mean, color=colour, lw=1.6, label=label)
    if len(series) > 1:
        ax.fill_between(
            places, [min(row) for _, row in known], [max(row) for _, row in known], color=colour, alpha=0.15, lw=0
        )
    return mean


def ready(ax: Axes, title: str, along: str) -> None:
    """Title, grid and the axis along which values are drawn: `t_s` or `window`."""
    ax.set_title(textwrap.fill(title, _TITLE), fontsize=9)
    ax.set_xlabel(AXES[along])
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if along == "window":
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(True, color="0.93")


def panel(
    ax: Axes,
    lines: Sequence[tuple[str, Sequence[Report]]],
    thresholds: Sequence[float],
    title: str,
    along: str = "t_s",
) -> None:
    """The curves of several methods, of which some may have no report; the axis begins where the curves part.

    Args:
      lines: label and reports of each; a colour belongs to a place, whether there are reports or not.
      thresholds: levels of the metric, drawn across.
      along: `t_s` or `window`.
    """
    ready(ax, title, along)
    drawn = [(curve(ax, found, label, colour, along), found)
             for (label, found), colour in zip(lines, COLOURS, strict=False) if found]  # fmt: skip
    if not drawn:
        return
    metric = Headline.of(drawn[0][1][0])
    ax.set_ylabel(metric.axis())
    levels = metric.drawn(thresholds)
    for threshold, level in zip(thresholds, levels, strict=True):
        ax.axhline(level, color="0.5", lw=0.8, ls=":")
        text = f" {metric.level_text(threshold)}"
        ax.annotate(text, (1, level), xycoords=("axes fraction", "data"), fontsize=7, va="center")
    _limits(ax, metric, [mean for mean, _ in drawn if mean], levels)
    ax.legend(fontsize=8, loc="best")


def _limits(ax: Axes, metric: Headline, means: Sequence[Sequence[float]], levels: Sequence[float]) -> None:
    """From a quarter of the way, at least: the start is alike for all, and what matters is near the thresholds."""
    quarter = [mean[len(mean) // 4] for mean in means]
    best = max if metric.higher_is_better else min
    worst = min if metric.higher_is_better else max
    far, near = best([best(mean) for mean in means] + [*levels]), worst(quarter + [*levels])
    top, low = max(far, near), min(far, near)
    highest = 100.0 if metric.share else np.inf
    ax.set_ylim(max(0.0, low - 0.1 * (top - low) - 2), min(highest, top + 0.1 * (top - low) + 1))

"""Draws groups of bars: a value of several methods in several settings, with the spread of the seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter

Bars = Sequence[tuple[str, str, Sequence[Sequence[float] | None]]]  # label, colour, values by seed in each group


def draw_bars(ax: Axes, groups: Sequence[str], bars: Bars, nothing: str) -> None:
    """A bar from 0 to the mean over the seeds for each group and label, a whisker from the least to the most.

    Args:
      groups: what stands below each group.
      bars: in a group None means that there is no run, an empty sequence that no run has a value.
      nothing: stands where no run has a value.
    """
    width = 0.8 / max(len(bars), 1)
    for number, (label, colour, by_group) in enumerate(bars):
        places = [group - 0.4 + (number + 0.5) * width for group in range(len(groups))]
        known = [(x, values) for x, values in zip(places, by_group, strict=True) if values]
        heights = [statistics.fmean(values) for _, values in known]
        ax.bar([x for x, _ in known], heights, 0.92 * width, color=colour, label=label)
        for (x, values), height in zip(known, heights, strict=True):
            if len(values) > 1:
                reach = [[height - min(values)], [max(values) - height]]
                ax.errorbar([x], [height], yerr=reach, color="0.45", lw=1.2, capsize=2)
        for x, found in zip(places, by_group, strict=True):
            if found is not None and not found:
                ax.annotate(
                    nothing, (x, 0), xytext=(0, 3), textcoords="offset points", rotation=90, fontsize=7, color=colour,
                    ha="center", va="bottom",
                )  # fmt: skip
    ax.set_xticks(range(len(groups)), groups)
    ax.set_xlim(-0.5, len(groups) - 0.5)
    ax.margins(y=0.08)
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    ax.grid(True, axis="y", color="0.93")
    ax.set_axisbelow(True)

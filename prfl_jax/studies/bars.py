"""Draws groups of bars: a value of several methods in several settings, with the spread of the seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter

# label, colour, and in each group the values by seed (None: this seed has none), or None where there is no run
Bars = Sequence[tuple[str, str, Sequence[Sequence[float | None] | None]]]


def draw_bars(ax: Axes, groups: Sequence[str], bars: Bars, nothing: str) -> None:
    """A bar from 0 to the mean over the seeds for each group and label, a whisker from the least to the most.

    Where some seeds have no value the bar says how many have one.

    Args:
      groups: what stands below each group.
      nothing: stands where no seed has a value.
    """
    width = 0.8 / max(len(bars), 1)
    for number, (label, colour, by_group) in enumerate(bars):
        places = [group - 0.4 + (number + 0.5) * width for group in range(len(groups))]
        ax.bar(places, [_mean(found) for found in by_group], 0.92 * width, color=colour, label=label)
        for x, found in zip(places, by_group, strict=True):
            known = [value for value in found or () if value is not None]
            if len(known) > 1:
                reach = [[_mean(known) - min(known)], [max(known) - _mean(known)]]
                ax.errorbar([x], [_mean(known)], yerr=reach, color="0.45", lw=1.2, capsize=2)
            if found and len(known) < len(found):
                text = f"{len(known)} of {len(found)}" if known else nothing
                ax.annotate(
                    text, (x, max(known, default=0.0)), xytext=(0, 3), textcoords="offset points", rotation=90,
                    fontsize=7, color=colour, ha="center", va="bottom",
                )  # fmt: skip
    ax.set_xticks(range(len(groups)), groups)
    ax.set_xlim(-0.5, len(groups) - 0.5)
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    ax.grid(True, axis="y", color="0.93")
    ax.set_axisbelow(True)


def _mean(found: Sequence[float | None] | None) -> float:
    """The mean of what is known; 0 where nothing is."""
    known = [value for value in found or () if value is not None]
    return statistics.fmean(known) if known else 0.0

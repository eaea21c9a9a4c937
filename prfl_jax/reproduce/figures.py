"""The paper's figures from reports and from the clock's event log, as PNG and SVG."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import StrMethodFormatter

from prfl_jax.report.names import strategy_name
from prfl_jax.report.series import value_at
from prfl_jax.reproduce.paper import ABLATIONS, MAIN
from prfl_jax.reproduce.presets import Column, Preset
from prfl_jax.reproduce.tables import Reports
from prfl_jax.transport.alone import clock_alone

matplotlib.rcParams["svg.hashsalt"] = "prfl_jax"  # the same figure gives the same file
matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
# Okabe and Ito's palette, black for PR-FL
_COLOURS = ("#000000", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#0072B2")
PHASES = {"downloads": "#56B4E9", "computes": "#009E73", "uploads": "#E69F00", "waits": "#DDDDDD"}


def save(figure: Figure, path: Path, mark: str) -> None:
    """Writes `path`.png and `path`.svg; `mark` goes across the top."""
    if mark:
        figure.suptitle(mark, color="#D55E00", fontsize=11)
    FigureCanvasAgg(figure)
    figure.savefig(path.with_suffix(".png"), dpi=130)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


def event_log(config: Any, windows: int) -> tuple[list[dict[str, Any]], list[float]]:
    """What each client does in the first windows, from the real clock without training.

    Returns:
      One entry a round and client (`client`, the seconds at which it was `dispatched`, had `downloaded`,
      `computed`, `arrived`, and the `closed` window's end), and the ends of the windows.
    """
    at_close = config.window.dispatch == "window_end"
    rounds, ends = [], []
    _, _, coming = clock_alone(config)
    for window in itertools.islice(coming, windows):
        ends.append(window.end_s)
        rounds += [
            {
                "client": a.client,
                "dispatched": a.dispatched_s,
                "downloaded": a.downloaded_s,
                "computed": a.computed_s,
                "arrived": a.arrived_s,
                "closed": window.end_s if at_close else a.arrived_s,
            }
            for a in window.arrivals
        ]
    return rounds, ends


def fig8(out: Path, preset: Preset) -> None:
    """Time streams of the first windows (the paper's Figs. 2-4 and 8): who downloads, computes, uploads, waits."""
    column = preset.columns[-1] if preset.name == "full" else preset.columns[0]
    panels = [("fedavg", 3), ("fedasyn", 24), ("prfl", 24)]
    figure = Figure(figsize=(11, 9), layout="constrained")
    axes = figure.subplots(len(panels), 1)
    for ax, (method, windows) in zip(axes, panels, strict=True):
        config = column.config(method, 0)
        config.density.interval = 8  # early enough to see pruning in the first windows
        rounds, ends = event_log(config, 4 * windows)  # so that what is under way at the last one is drawn too
        draw_stream(ax, [r for r in rounds if r["dispatched"] < ends[windows - 1]], ends[:windows])
        ax.set_title(f"{strategy_name(method)}: the first {windows} windows", fontsize=10)
    keys = [Patch(color=colour, label=phase) for phase, colour in PHASES.items()]
    axes[0].legend(handles=keys, ncol=4, fontsize=8, loc="upper right")
    axes[-1].set_xlabel("simulated time (s); PR-FL prunes for the first time after window 8 here")
    save(figure, out / "fig8", preset.mark)


def draw_stream(ax: Axes, rounds: Sequence[Mapping[str, Any]], ends: Sequence[float]) -> None:
    """One bar of each phase a round and client; dotted lines are the windows' ends."""
    moments = ("dispatched", "downloaded", "computed", "arrived", "closed")
    for colour, first, last in zip(PHASES.values(), moments[:-1], moments[1:], strict=True):
        lengths = [r[last] - r[first] for r in rounds]
        ax.barh([r["client"] for r in rounds], lengths, left=[r[first] for r in rounds], color=colour, height=0.75)
    for end in ends:
        ax.axvline(end, color="0.35", lw=0.5, ls=":")
    clients = max((r["client"] for r in rounds), default=0) + 1
    ax.set_yticks(range(clients), [str(c) for c in range(clients)])
    ax.invert_yaxis()
    ax.set_ylabel("client")
    ax.set_xlim(0, ends[-1])


def _curve(ax: Axes, reports: Sequence[Mapping[str, Any]], label: str, colour: str) -> None:
    """Mean over seeds, and the band between least and most."""
    curves = [r["curves"][r["final"]["model"]] for r in reports]
    grid = sorted({t for curve in curves for t in curve["t_s"]})
    values = [[value_at(c["t_s"], c["accuracy"], t) for c in curves] for t in grid]
    known = [(t, [100 * v for v in row if v is not None]) for t, row in zip(grid, values, strict=True)]
    known = [(t, row) for t, row in known if row]
    times = [t for t, _ in known]
    ax.plot(times, [statistics.fmean(row) for _, row in known], color=colour, lw=1.6, label=label)
    if len(curves) > 1:
        ax.fill_between(
            times, [min(row) for _, row in known], [max(row) for _, row in known], color=colour, alpha=0.15, lw=0
        )


def _accuracy_axes(ax: Axes, column: Column) -> None:
    ax.set_title(column.title, fontsize=9)
    for threshold in column.thresholds:
        ax.axhline(100 * threshold, color="0.5", lw=0.8, ls=":")
    ax.set_ylabel("test accuracy (%)")
    ax.set_xlabel("simulated time (s)")
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.grid(True, color="0.93")


def fig9(out: Path, preset: Preset, reports: Reports) -> None:
    """Accuracy over simulated time of each method, a panel a column."""
    across = min(2, len(preset.columns))
    down = -(-len(preset.columns) // across)
    figure = Figure(figsize=(5.6 * across, 3.9 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for ax, column in zip(panels, preset.columns, strict=False):
        for method, colour in zip(MAIN, _COLOURS, strict=False):
            if found := reports.get((column.key, method)):
                _curve(ax, found, strategy_name(method), colour)
        _accuracy_axes(ax, column)
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize=8, loc="lower right")
    for ax in panels[len(preset.columns) :]:
        ax.set_visible(False)
    save(figure, out / "fig9", preset.mark)


def fig10(out: Path, preset: Preset, reports: Reports) -> None:
    """The ablations over simulated time, and under them the density of each client of PR-FL (first seed)."""
    columns = [column for column in preset.columns if set(ABLATIONS) & set(column.methods)]
    figure = Figure(figsize=(6.5 * len(columns), 7.5), layout="constrained")
    axes = figure.subplots(2, len(columns), squeeze=False, height_ratios=(3, 2))
    for place, column in enumerate(columns):
        upper, lower = axes[:, place]
        for method, colour in zip(("prfl", *ABLATIONS), _COLOURS, strict=False):
            if found := reports.get((column.key, method)):
                _curve(upper, found, strategy_name(method), colour)
        _accuracy_axes(upper, column)
        if upper.get_legend_handles_labels()[0]:
            upper.legend(fontsize=8, loc="lower right")
        for report in reports.get((column.key, "prfl"), ())[:1]:
            shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.92, len(report["clients"])))
            for entry, colour in zip(report["clients"], shades, strict=True):
                steps = entry["densities"]
                if steps["t_s"]:
                    percents = [*steps["percent"], steps["percent"][-1]]
                    times = [*steps["t_s"], report["simulated_s"]]
                    shares = [p / 100 for p in percents]
                    lower.step(times, shares, where="post", color=colour, label=str(entry["client"]))
            lower.legend(title="client", fontsize=7, ncol=5, loc="lower right")
        lower.set_ylabel("density, PR-FL")
        lower.set_xlabel("simulated time (s)")
        lower.set_ylim(0, 1.05)
        lower.grid(True, color="0.93")
    save(figure, out / "fig10", preset.mark)

"""Draws the PR-FL paper's figures from reports and from the clock's event log, as PNG and SVG."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import StrMethodFormatter

from prfl_jax.clock import find_dispatch_rule
from prfl_jax.report.names import strategy_name
from prfl_jax.report.series import value_at
from prfl_jax.runtime.clock_only import clock_alone
from prfl_jax.studies.columns import Column
from prfl_jax.studies.curves import grid, panel, save
from prfl_jax.studies.prfl.paper import ABLATIONS, EXTRAS, MAIN
from prfl_jax.studies.prfl.tables import void
from prfl_jax.studies.reports import Reports
from prfl_jax.studies.study import Material

EARLY = 8  # windows to the first pruning in fig8
PHASES = {"downloads": "#56B4E9", "computes": "#009E73", "uploads": "#E69F00", "waits": "#DDDDDD"}


def event_log(config: Any, windows: int) -> tuple[list[dict[str, Any]], list[float]]:
    """What each client does in the first windows, from the real clock without training.

    Returns:
      One entry a round and client (`client`, the seconds at which it was `dispatched`, had `downloaded`,
      `computed`, `arrived`, and the `closed` window's end), and the ends of the windows.
    """
    at_close = not find_dispatch_rule(config.window.dispatch).on_arrival
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


def fig8(material: Material) -> None:
    """Time streams of the first windows (the paper's Figs. 2-4 and 8): who downloads, computes, uploads, waits."""
    preset = material.preset
    column = preset.columns[-1] if preset.name == "full" else preset.columns[0]
    logs = {}
    for method in ("fedavg", "fedasyn", "prfl"):
        config = column.config(method, 0)
        config.density.interval = EARLY  # so that pruning is seen in the first windows
        logs[method] = event_log(config, 200)
    until = logs["fedavg"][1][2]  # three rounds of FedAvg, and what the others do in that time
    figure = Figure(figsize=(11, 9.5), layout="constrained")
    axes = figure.subplots(len(logs), 1)
    seen: set[str] = set()
    for ax, (method, (rounds, ends)) in zip(axes, logs.items(), strict=True):
        ends = [end for end in ends if end <= until]
        seen |= draw_stream(ax, [r for r in rounds if r["dispatched"] < until], ends, until)
        ax.set_title(f"{strategy_name(method)}: the first {len(ends)} windows", fontsize=10)
        ax.set_xlabel("simulated time (s)")
    keys: list[Artist] = [Patch(color=colour, label=phase) for phase, colour in PHASES.items() if phase in seen]
    keys.append(Line2D([], [], color="0.35", lw=0.8, ls=":", label="end of a window"))
    figure.legend(handles=keys, ncol=len(keys), fontsize=9, loc="outside lower center")
    note = f"{column.title}; PR-FL prunes for the first time after window {EARLY} here"
    figure.suptitle("\n".join(filter(None, [preset.mark, note])), fontsize=10)
    save(figure, material.out / "fig8", "")


def draw_stream(ax: Axes, rounds: Sequence[Mapping[str, Any]], ends: Sequence[float], until: float) -> set[str]:
    """One bar of each phase a round and client, dotted lines at the windows' ends; returns the phases that took time.

    Args:
      until: right end of the axis, s.
    """
    moments = ("dispatched", "downloaded", "computed", "arrived", "closed")
    seen = set()
    for (phase, colour), first, last in zip(PHASES.items(), moments[:-1], moments[1:], strict=True):
        corners = []
        for r in rounds:
            begin, end, top = r[first], min(r[last], until), r["client"] - 0.375
            if end > begin:
                corners.append([(begin, top), (end, top), (end, top + 0.75), (begin, top + 0.75)])
        if corners:
            seen.add(phase)
            ax.add_collection(PolyCollection(corners, facecolors=colour, linewidths=0))
    for end in ends:
        ax.axvline(end, color="0.35", lw=0.5, ls=":")
    clients = max((r["client"] for r in rounds), default=0) + 1
    ax.set_yticks(range(clients), [str(c) for c in range(clients)])
    ax.set_ylim(clients - 0.4, -0.6)
    ax.set_ylabel("client")
    ax.set_xlim(0, until)
    return seen


def _panel(ax: Axes, column: Column, methods: Sequence[str], reports: Reports, title: str) -> None:
    """Accuracy over simulated time of these methods."""
    lines = []
    for method in methods:
        found = reports.get((column.key, method), ())
        why = void(method, found, reports.get((column.key, "prfl"), ()))
        lines.append((strategy_name(method) + (" (void, see Table V)" if why else ""), found))
    panel(ax, lines, column.thresholds, title)


def fig9(material: Material) -> None:
    """Accuracy over simulated time of each method of Table IV, a panel for each column with reports."""
    preset, reports = material.preset, material.reports
    columns = [column for column in preset.columns if any((column.key, method) in reports for method in MAIN)]
    if not columns:
        return
    figure, panels = grid(len(columns), 5.6, 3.9)
    for ax, column in zip(panels, columns, strict=True):
        _panel(ax, column, MAIN, reports, column.title)
    save(figure, material.out / "fig9", preset.mark)


def fig10(material: Material) -> None:
    """The ablations over simulated time, the methods beyond the paper's, and each client's density (first seed)."""
    preset, reports = material.preset, material.reports
    columns = [
        column
        for column in preset.columns
        if any((column.key, method) in reports for method in column.methods if method in (*ABLATIONS, *EXTRAS))
    ]
    if not columns:
        return
    figure = Figure(figsize=(12, 7.5 * len(columns)), layout="constrained")
    axes = figure.subplots(2 * len(columns), 2, squeeze=False, height_ratios=(3, 2) * len(columns))
    for place, column in enumerate(columns):
        sides = (
            ("ablations", ("prfl", *ABLATIONS), "prfl"),
            ("beyond the paper", ("prfl", *EXTRAS), "heterofl_recovery"),
        )
        for side, (title, methods, pruned) in enumerate(sides):
            upper, lower = axes[2 * place, side], axes[2 * place + 1, side]
            _panel(upper, column, methods, reports, f"{column.title}: {title}")
            found = reports.get((column.key, pruned))
            if found:
                _densities(figure, lower, found[0])
            lower.set_title(f"density of each client, {strategy_name(pruned)}", fontsize=9)
            lower.set_visible(bool(found))
    save(figure, material.out / "fig10", preset.mark)


def _densities(figure: Figure, ax: Axes, report: Mapping[str, Any]) -> None:
    """A row a client, from dark (1) to light (0)."""
    steps = [entry["densities"] for entry in report["clients"]]
    edges = sorted({0.0, float(report["simulated_s"]), *(t for step in steps for t in step["t_s"])})
    middles = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
    shares = [[(value_at(step["t_s"], step["percent"], t) or 100) / 100 for t in middles] for step in steps]
    rows = np.arange(len(steps) + 1) - 0.5
    drawn = ax.pcolormesh(edges, rows, np.array(shares), cmap="viridis_r", vmin=0, vmax=1)
    figure.colorbar(drawn, ax=ax, label="density")
    ax.set_yticks(range(len(steps)), [str(entry["client"]) for entry in report["clients"]])
    ax.invert_yaxis()
    ax.set_ylabel("client")
    ax.set_xlabel("simulated time (s)")
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))

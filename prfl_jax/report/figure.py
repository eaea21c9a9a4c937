"""Draws the figure of a run with matplotlib: its metric over simulated time, and below densities or masks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, StrMethodFormatter

from prfl_jax.report.groups import alike, one_of_each_seed, settings, spread_on_grid
from prfl_jax.report.masks import HeldShares, held_shares
from prfl_jax.report.metric import Headline
from prfl_jax.report.names import headline_name, model_name, one_model, strategy_name, title_of
from prfl_jax.report.schema import present_version
from prfl_jax.system.files import replacing

# Okabe and Ito's palette, which people with any colour vision can distinguish; black is the run itself.
_OWN, _OTHER_CURVE = "#000000", "#0072B2"
_COMPARISONS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_COMPARISON_STYLES = ("-", "--", "-.", ":")
_NAMED_CLIENTS = 12  # more get a colour scale instead of a legend
_NAMED_LINES = 8  # more get a smaller legend in two columns
_SIZE_INCHES = (8.5, 6.4)


def run_figure(
    report_or_list: Mapping[str, Any] | Sequence[Mapping[str, Any]], path_png: str | os.PathLike[str]
) -> None:
    """Draws a run and saves it as PNG (or another format, by the ending of the path).

    The upper axes show the headline metric of both server models and of other strategies over simulated time (s), in %
    if it is a share; values that are a decade apart have a logarithmic axis. The lower axes show each client's density
    as a step line; where masks are chosen during the run, the share that the server's holds, and the mean of the
    clients' own in a band from the least to the most.

    Args:
      report_or_list: a report, whose `compare` gives the other strategies; or several reports of one metric, of which
        the first is the run whose densities or masks are shown. Other runs that differ only in their seed become one
        line, their mean, in a band from their minimum to their maximum.
      path_png: the file, which is replaced.

    Raises:
      ValueError: for an empty list, or reports of different metrics.
    """
    given = [report_or_list] if isinstance(report_or_list, Mapping) else list(report_or_list)
    reports = [present_version(report) for report in given]
    if not reports:
        raise ValueError("run_figure needs at least one report")
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _draw_metric(upper, reports)
    held = held_shares(reports[0])
    if held is None:
        _draw_densities(figure, lower, reports[0])
    else:
        _draw_held(lower, held)
    lower.set_ylim(0, 1.05)
    lower.set_axisbelow(True)
    lower.grid(True, color="0.92")
    figure.suptitle(title_of(reports[0]).encode(errors="backslashreplace").decode(), fontsize=11)
    lower.set_xlabel("simulated time (s)")
    lower.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    _limit_time(lower, reports)
    path = Path(path_png)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        figure.savefig(part, dpi=150, format=path.suffix[1:] or "png")


def _draw_metric(axes: Axes, reports: Sequence[Mapping[str, Any]]) -> None:
    main, metric = reports[0], Headline.shared(reports)
    headline = main["final"]["model"]
    own = strategy_name(main["strategy"])
    one = one_model(main)
    shown: list[float | None] = []
    for name, curve in main["curves"].items():
        if not curve["t_s"] or (one and name != headline):
            continue
        values = curve[metric.name]
        (line,) = axes.plot(curve["t_s"], metric.drawn(values), label=f"{own}: {model_name(name, one)}")
        if name == headline:
            line.set(color=_OWN, linewidth=2.0, zorder=4)
        else:
            line.set(color=_OTHER_CURVE, linewidth=1.1, linestyle=(0, (4, 1.5)), zorder=5)
        shown += values
    for place, (label, times, values, band) in enumerate(_others(metric, reports)):
        color = _COMPARISONS[place % len(_COMPARISONS)]
        style_name = _COMPARISON_STYLES[place // len(_COMPARISONS) % len(_COMPARISON_STYLES)]
        axes.plot(times, metric.drawn(values), color=color, ls=style_name, lw=1.8, zorder=3, label=label)
        if band is not None:
            low, high = (metric.drawn(edge) for edge in band)
            axes.fill_between(times, low, high, color=color, alpha=0.15, lw=0, zorder=2)
        shown += values
    for threshold in main[metric.times]:
        (level,) = metric.drawn([float(threshold)])
        axes.axhline(level, color="0.45", lw=0.9, ls=":", zorder=2)
        axes.annotate(
            metric.level_text(threshold), (1, level), xycoords=axes.get_yaxis_transform(), xytext=(3, 0),
            textcoords="offset points", va="center", fontsize=8, color="0.4",
        )  # fmt: skip
    if metric.is_logarithmic(shown):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.yaxis.set_minor_formatter(FuncFormatter(_two_and_five))
    axes.set_ylabel(metric.axis())
    axes.set_axisbelow(True)
    axes.grid(True, color="0.92")
    if axes.get_legend_handles_labels()[0]:
        entries = len(axes.get_legend_handles_labels()[0])
        few = entries <= _NAMED_LINES
        axes.legend(loc=_corner(metric), fontsize=9 if few else 7, ncols=1 if few else 2, framealpha=0.9)
    else:
        axes.text(0.5, 0.5, "no evaluation was reached", transform=axes.transAxes, ha="center", color="0.4")


def _corner(metric: Headline) -> Literal["lower right", "upper right"]:
    """The corner where curves that get better are not."""
    return "lower right" if metric.higher_is_better else "upper right"


class _Line(NamedTuple):
    """A line that the first report is compared with; `band` (minimum, maximum) if it is the mean of several seeds."""

    label: str
    t_s: Sequence[float]
    values: Sequence[float | None]
    band: tuple[Sequence[float], Sequence[float]] | None = None


def _others(metric: Headline, reports: Sequence[Mapping[str, Any]]) -> list[_Line]:
    """The lines that the first report is compared with; runs that differ only in their seed are one line."""
    main, found = reports[0], []
    for strategy, entry in main["compare"].items():
        label = f"{strategy_name(strategy)}: {model_name(entry['model'], entry.get('one_model', False))}"
        found.append(_Line(label, entry["curve"]["t_s"], entry["curve"][metric.name]))
    for places in alike([settings(report) for report in reports]):
        members = [reports[place] for place in places]
        members = [members[place] for place in one_of_each_seed(members)]
        first, seeds = members[0], ", ".join(str(report["seed"]) for report in members)
        name, model = strategy_name(first["strategy"]), headline_name(first)
        if places == [0] or first["strategy"] in main["compare"]:
            continue
        curves = [(c["t_s"], c[metric.name]) for c in (r["curves"][r["final"]["model"]] for r in members)]
        if len(members) == 1:
            seed = f", seed {seeds}" if first["seed"] != main["seed"] else ""
            found.append(_Line(f"{name}{seed}: {model}", *curves[0]))
        else:
            t_s, mean, low, high = spread_on_grid(curves)
            found.append(_Line(f"{name}, mean of seeds {seeds}: {model}", t_s, mean, (low, high)))
    return [entry for entry in found if entry.t_s]


def _draw_densities(figure: Figure, axes: Axes, report: Mapping[str, Any]) -> None:
    clients, end_s = report["clients"], report["simulated_s"]
    few = len(clients) <= _NAMED_CLIENTS
    colours, norm = _client_colours(), Normalize(0, max(1, report["clients_total"] - 1))
    for entry in clients:
        steps = entry["densities"]
        if not steps["t_s"]:
            continue
        axes.step(
            [*steps["t_s"], end_s],
            [percent / 100 for percent in [*steps["percent"], steps["percent"][-1]]],
            where="post",
            color=colours(norm(entry["client"])),
            lw=1.6 if few else 0.8,
            alpha=1.0 if few else 0.6,
            label=str(entry["client"]),
        )
    if few and axes.get_legend_handles_labels()[0]:
        axes.legend(
            title="client", loc="center left", bbox_to_anchor=(1.005, 0.5), fontsize=8, title_fontsize=8,
            handlelength=1.4, labelspacing=0.25, borderaxespad=0.0, frameon=False,
        )  # fmt: skip
    elif not few:
        times, means = _mean_density(clients)
        (line,) = axes.step([*times, end_s], [*means, means[-1]], where="post", color=_OWN, lw=1.8, ls="--")
        axes.legend([line], ["mean of the clients"], loc="lower right", fontsize=9, framealpha=0.9)
        figure.colorbar(ScalarMappable(norm, colours), ax=axes, label="client", pad=0.01, aspect=15)
    axes.set_ylabel("density of each client")


def _draw_held(axes: Axes, held: HeldShares) -> None:
    axes.step(held.t_s, held.server, where="post", color=_OWN, lw=2.0, zorder=4, label="server's mask")
    if held.clients is not None:
        mean, least, most = held.clients
        axes.step(
            held.t_s, mean, where="post", color=_OTHER_CURVE, lw=1.4, ls=(0, (4, 1.5)), zorder=5,
            label="clients' own masks, mean",
        )  # fmt: skip
        axes.fill_between(
            held.t_s, least, most, step="post", color=_OTHER_CURVE, alpha=0.2, lw=0, zorder=2, label="least to most"
        )
    axes.legend(loc="upper right", fontsize=9, framealpha=0.9)
    axes.set_ylabel("share of the model kept")


def _mean_density(clients: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    """The mean of the clients' step functions: the times at which any of them changes, and the mean from each on."""
    changes = [
        (t_s, client, percent / 100)
        for client, entry in enumerate(clients)
        for t_s, percent in zip(entry["densities"]["t_s"], entry["densities"]["percent"], strict=True)
    ]
    changes.sort(key=lambda change: change[0])  # stable: of two changes at one time the later holds
    now = [1.0] * len(clients)
    means: dict[float, float] = {0.0: 1.0}
    total = float(len(clients))
    for t_s, client, density in changes:
        total += density - now[client]
        now[client] = density
        means[t_s] = total / len(clients)
    return list(means), list(means.values())


def _client_colours() -> Colormap:
    """Colours from the first client (dark) to the last (yellow), evenly spaced in brightness, readable on white."""
    viridis = matplotlib.colormaps["viridis"]
    return ListedColormap([viridis(0.92 * step / 255) for step in range(256)])


def _limit_time(axes: Axes, reports: Sequence[Mapping[str, Any]]) -> None:
    ends = [report["simulated_s"] for report in reports]
    ends += [entry["curve"]["t_s"][-1] for entry in reports[0]["compare"].values() if entry["curve"]["t_s"]]
    if max(ends) > 0:
        axes.set_xlim(0, max(ends))


def _two_and_five(value: float, position: int | None) -> str:
    """The label of a small tick of a logarithmic axis: of 2, 5, 20, 50 and so on; '' for the others."""
    return f"{value:,g}" if f"{value:e}"[0] in "25" else ""

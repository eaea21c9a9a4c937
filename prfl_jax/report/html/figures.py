"""Makes the figures of an HTML page as Plotly objects: metric, traffic, timeline, densities, staleness."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from prfl_jax.report.groups import spread_along, spread_on_grid
from prfl_jax.report.html.groups import Group
from prfl_jax.report.html.runs import MOST_ARRIVALS, Run
from prfl_jax.report.html.spread import Spread
from prfl_jax.report.masks import HeldShares, held_shares
from prfl_jax.report.names import headline_name

MOST_CLIENTS = 50  # whose densities are drawn
_AXES = {
    "simulated time": "simulated time, s",
    "windows": "windows",
    "bytes": "bytes over the server's links, GB",
    "host time": "host time, s",
}
BYTES = {
    "bytes_down": "sent by the server",
    "bytes_up": "received by the server",
    "bytes_client_down": "received by the clients",
}
_PATTERNS = {"solid": "", "dash": "/", "dot": ".", "dashdot": "x", "longdash": "|", "longdashdot": "-"}
_PHASES = {"download": "#4c78a8", "train": "#54a24b", "upload": "#f58518", "wait": "#d3d3d3"}


def headline(groups: Sequence[Group]) -> go.Figure:
    """The headline metric of each group over simulated time, windows, bytes or host time; buttons choose among them.

    A group of several seeds is drawn as their mean in a band from minimum to maximum; its single runs are hidden at
    first. A trace's `meta` has its `group` and its `part`: band, line or run. The groups have one metric.
    """
    figure, along = go.Figure(), {name: [_drawn(group, name) for group in groups] for name in _AXES}
    metric = groups[0].metric
    for k, group in enumerate(groups):
        for (part, xs, ys), name in zip(along["simulated time"][k], _names(group), strict=True):
            figure.add_scatter(
                x=xs, y=ys, name=name, meta={"group": group.number, "part": part}, legendgroup=str(group.number),
                **_look(group, part),
            )  # fmt: skip
    figure.data = sorted(figure.data, key=lambda trace: ("band", "line", "run").index(trace.meta["part"]))
    buttons = []
    for name, drawn in along.items():
        runs = [run for group in groups for run in group.runs]
        unknown = sum(_along(run, name) is None for run in runs)
        if unknown == len(runs):
            continue
        title = _AXES[name] + (f" (not known of {unknown} runs)" if unknown else "")
        parts = sorted((part for group in drawn for part in group), key=lambda p: ("band", "line", "run").index(p[0]))
        change = {"x": [xs for _, xs, _ in parts], "y": [ys for _, _, ys in parts]}
        layout = {"xaxis.title.text": title, "xaxis.autorange": True}
        buttons.append({"label": name, "method": "update", "args": [change, layout]})
    look = {"type": "buttons", "direction": "right", "y": 1, "yanchor": "bottom", "pad": {"b": 8}, "font": {"size": 11}}
    menus = [{**look, "buttons": buttons, "x": 0, "xanchor": "left", "visible": len(buttons) > 1}]
    axis, heights = _heights(groups)
    if heights:
        zoom = [{"label": label, "method": "relayout", "args": [change]} for label, change in heights.items()]
        menus.append({**look, "buttons": zoom, "x": 1, "xanchor": "right"})
    models = sorted({headline_name(run.report) for group in groups for run in group.runs})
    figure.update_layout(
        updatemenus=menus, xaxis_title=_AXES["simulated time"], yaxis=axis,
        yaxis_title=f"test {metric.words} ({' / '.join(models)})",
        height=max(520, 140 + sum(10 + 18 * (1 + group.label().count("<br>")) for group in groups)),
    )  # fmt: skip
    return _styled(figure)


def _heights(groups: Sequence[Group]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Plotly's settings of the y axis, and the changes of it that buttons offer, by their label."""
    metric, runs = groups[0].metric, [run for group in groups for run in group.runs]
    values = [value for run in runs for value in run.values if value is not None]
    if metric.share:
        near = _near(runs)
        whole: dict[str, Any] = {"yaxis.autorange": True}
        return {"tickformat": ".0%"}, {"all": whole, f"from {near[0]:.0%}": {"yaxis.range": near}} if near else {}
    if not metric.is_logarithmic(values):
        return {}, {}
    ticks: dict[str, Any] = {"log": "D2", "linear": None}
    kinds: dict[str, dict[str, Any]] = {
        kind: {"yaxis.type": kind, "yaxis.autorange": True, "yaxis.dtick": dtick} for kind, dtick in ticks.items()
    }
    return {"type": "log", "dtick": ticks["log"], "tickformat": ",~g"}, kinds


def _near(runs: Sequence[Run]) -> list[float] | None:
    """The range of the shares in the table, if it is only the upper part of the axis; else None."""
    metric = runs[0].metric
    best = max((share for run in runs for share in run.values if share is not None), default=0.0)
    levels = [float(level) for run in runs for level in run.report[metric.times]]
    low = min((level for level in levels if level < best), default=0.0) - 0.1
    return [round(low, 2), best + 0.1 * (best - low)] if low > 0.3 and metric.higher_is_better else None


def _names(group: Group) -> list[str]:
    """The name of each trace of a group, in the order of `_drawn`."""
    several = [group.label(), group.label()] if len(group.runs) > 1 else [group.label()]
    return several + [f"{group.label()}, {escape(run.name)}" for run in _single(group)]


def _single(group: Group) -> list[Run]:
    """The runs that are drawn on demand; a group of one run has only its line."""
    return [*(group.runs if len(group.runs) > 1 else ()), *group.again]


def _look(group: Group, part: str) -> dict[str, Any]:
    """Plotly's settings for a part of a group."""
    if part == "band":
        colour = f"rgba({', '.join(str(int(group.colour[k : k + 2], 16)) for k in (1, 3, 5))}, 0.11)"
        return {"fill": "toself", "fillcolor": colour, "mode": "none", "hoverinfo": "skip", "showlegend": False}
    number = ".1%" if group.metric.share else ",.4~g"
    shown = f"%{{y:{number}}}" + " at %{x:,.5~g}<extra>%{fullData.name}</extra>"
    look: dict[str, Any] = {"mode": "lines", "line": {"color": group.colour, "dash": group.dash, "width": 2}}
    look["hovertemplate"] = shown
    if part == "run":
        look |= {"line": {"color": group.colour, "dash": group.dash, "width": 1}, "opacity": 0.65}
        look |= {"showlegend": False, "visible": False}
    elif len(group.runs) > 1:
        seeds = sum(bool(run.curve["t_s"]) for run in group.runs)
        look["hovertemplate"] = shown.replace("<extra>", f" (mean of {seeds} seeds)<extra>")
    return look


def _drawn(group: Group, name: str) -> list[tuple[str, list[Any], list[Any]]]:
    """(part, x, y) of each trace of a group over one x axis."""
    single = [("run", *_curve(run, name)) for run in _single(group)]
    if len(group.runs) == 1:
        return [("line", *_curve(group.runs[0], name)), *single]
    spread = spread_on_grid if name == "simulated time" else spread_along
    evaluated = [run for run in group.runs if run.curve["t_s"]]  # one without evaluations has no end
    xs, mean, low, high = spread([_curve(run, name) for run in evaluated]) if evaluated else ([], [], [], [])
    return [("band", xs + xs[::-1], high + low[::-1]), ("line", xs, mean), *single]


def _curve(run: Run, name: str) -> tuple[list[Any], list[Any]]:
    """x and y of a run; [None] if its x are not known."""
    xs = _along(run, name)
    return ([None], [None]) if xs is None else (xs, run.values)


def _along(run: Run, name: str) -> list[Any] | None:
    curve = run.curve
    if name == "simulated time":
        return curve["t_s"]
    if name == "windows":
        return curve.get("window")
    if name == "host time":
        return run.host_s()
    if "bytes_up" not in curve:
        return None
    return [
        None if up is None or down is None else (up + down) / 1e9
        for up, down in zip(curve["bytes_up"], curve["bytes_down"], strict=True)
    ]


def traffic(groups: Sequence[Group]) -> go.Figure:
    """Bytes of each group, one panel for each kind: the mean over the seeds, with a whisker from minimum to maximum."""
    titles = list(BYTES.values())
    figure = make_subplots(1, len(BYTES), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.04)
    labels = [group.label(34) for group in groups]
    for panel, (key, label) in enumerate(BYTES.items(), start=1):
        found = [Spread.of([run.report[key] / 1e9 for run in group.runs]) for group in groups]
        ends = {
            "type": "data", "symmetric": False, "array": [s.high - s.mean if s.known > 1 else None for s in found],
            "arrayminus": [s.mean - s.low if s.known > 1 else None for s in found], "color": "#444", "thickness": 1.2,
            "width": 3, "visible": any(s.known > 1 for s in found),
        }  # fmt: skip
        figure.add_bar(
            x=[s.mean for s in found], y=labels, name=label, orientation="h", showlegend=False, error_x=ends,
            marker_color=[group.colour for group in groups],
            marker_pattern={"shape": [_PATTERNS[group.dash] for group in groups], "fillmode": "replace"},
            customdata=[[len(group.runs), s.low, s.high] for group, s in zip(groups, found, strict=True)],
            hovertemplate="%{y}: %{x:,.4~g} GB " + label
            + " (%{customdata[0]} run(s), %{customdata[1]:,.4~g} to %{customdata[2]:,.4~g})<extra></extra>",
            row=1, col=panel,
        )  # fmt: skip
    figure.update_xaxes(title_text="GB", rangemode="tozero", nticks=5)
    figure.update_yaxes(autorange="reversed", automargin=True, ticksuffix=" ")
    figure.update_annotations(font_size=13)
    figure.update_layout(height=130 + sum(10 + 17 * (1 + label.count("<br>")) for label in labels), bargap=0.3)
    return _styled(figure)


def timeline(run: Run, most: int = MOST_ARRIVALS) -> go.Figure | None:
    """When clients download, train, upload and wait, of about `most` arrivals; None without the run's records."""
    arrivals = run.arrivals(most)
    if not arrivals:
        return None
    figure = go.Figure()
    for phase, colour in _PHASES.items():
        starts, lengths = zip(*(_phase(arrival, phase) for arrival in arrivals), strict=True)
        figure.add_bar(
            base=starts, x=lengths, y=[arrival["client"] for arrival in arrivals], orientation="h", name=phase,
            marker_color=colour, marker_line_width=0,
            customdata=[[arrival["window"], arrival["staleness"]] for arrival in arrivals],
            hovertemplate="client %{y}: " + phase
            + " from %{base:,.1f} s, window %{customdata[0]}, staleness %{customdata[1]}<extra></extra>",
        )  # fmt: skip
    total = run.report["client_updates"]
    shown = f"the first {len(arrivals):,} of {total:,} arrivals" if len(arrivals) < total else f"all {total:,} arrivals"
    end = max(arrival["arrived_s"] + arrival["waiting_s"] for arrival in arrivals)
    figure.update_layout(
        barmode="overlay", bargap=0.25, title=shown, xaxis_title="simulated time, s", yaxis_title="client",
        xaxis_range=[0, min(end, 60 * arrivals[0]["round_s"])], height=460,
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", tickformat="d")
    return _styled(figure)


def _phase(arrival: dict[str, Any], phase: str) -> tuple[float, float]:
    """(start, length) of a phase of an arrival, simulated s."""
    sent = arrival["arrived_s"] - arrival["round_s"]
    download, train = arrival["download_s"], arrival["train_s"]
    return {
        "download": (sent, download),
        "train": (sent + download, train),
        "upload": (sent + download + train, arrival["round_s"] - download - train),
        "wait": (arrival["arrived_s"], arrival["waiting_s"]),
    }[phase]


def densities(run: Run) -> go.Figure:
    """The density of each client over simulated time, as step lines; of a run with masks what these hold."""
    held = held_shares(run.report)
    if held is not None:
        return _held(held)
    figure, shown = go.Figure(), run.report["clients"][:MOST_CLIENTS]
    colours = sample_colorscale("Viridis", [0.92 * k / max(1, len(shown) - 1) for k in range(len(shown))])
    for client, colour in zip(shown, colours, strict=True):
        steps = client["densities"]
        figure.add_scatter(
            x=[*steps["t_s"], run.report["simulated_s"]], y=[*steps["percent"], steps["percent"][-1]], mode="lines",
            line_shape="hv", line_color=colour, name=f"client {client['client']}",
        )  # fmt: skip
    figure.update_layout(xaxis_title="simulated time, s", yaxis_title="density, %", height=400)
    return _styled(figure)


def _held(held: HeldShares) -> go.Figure:
    """The share that the server's mask holds; of the clients' own masks the mean, in a band from least to most."""
    figure, percent = go.Figure(), lambda shares: [100 * share for share in shares]
    look: dict[str, Any] = {"x": held.t_s, "mode": "lines", "line_shape": "hv"}
    if held.clients is not None:
        mean, least, most = map(percent, held.clients)
        band = {**look, "line_width": 0, "legendgroup": "band", "hoverinfo": "skip"}
        figure.add_scatter(y=least, showlegend=False, **band)
        figure.add_scatter(
            y=most, name="clients' own masks, least to most", fill="tonexty", fillcolor="rgba(0, 114, 178, 0.2)", **band
        )
        figure.add_scatter(y=mean, name="clients' own masks, mean", line_color="#0072b2", line_dash="dash", **look)
    figure.add_scatter(y=percent(held.server), name="server's mask", line_color="#1a1a1a", showlegend=True, **look)
    figure.update_layout(xaxis_title="simulated time, s", yaxis_title="share of the model kept, %", height=400)
    figure.update_yaxes(range=[0, 105])
    return _styled(figure)


def staleness(run: Run) -> go.Figure:
    """Mean and largest staleness of each client's updates, and their number."""
    clients = run.report["clients"]
    ids = [client["client"] for client in clients]
    figure = go.Figure()
    figure.add_bar(
        x=ids, y=[client["staleness_mean"] for client in clients], name="mean",
        customdata=[client["updates"] for client in clients],
        hovertemplate="client %{x}: mean %{y:.2f} over %{customdata:,} updates<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(x=ids, y=[client["staleness_max"] for client in clients], name="largest", mode="markers")
    figure.update_layout(xaxis_title="client", yaxis_title="staleness, windows", height=400)
    return _styled(figure)


def _styled(figure: go.Figure) -> go.Figure:
    figure.update_layout(template="plotly_white", margin={"l": 60, "r": 20, "t": 60, "b": 50}, hovermode="closest")
    return figure

"""The figures of a page, as Plotly's own objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from prfl_jax.page.runs import Run

MOST_CLIENTS = 50  # of which densities are drawn
_AXES = {
    "simulated time": "simulated time, s",
    "windows": "windows",
    "bytes": "bytes over the server's links, GB",
    "host time": "host time, s",
}
_PHASES = {"download": "#4c78a8", "train": "#54a24b", "upload": "#f58518", "wait": "#d3d3d3"}


def accuracy(runs: Sequence[Run]) -> go.Figure:
    """Accuracy of each run over simulated time, windows, bytes or host time; buttons switch."""
    along = {name: [_along(run, name) for run in runs] for name in _AXES}
    figure = go.Figure()
    for run, times in zip(runs, along["simulated time"], strict=True):
        figure.add_scatter(
            x=times, y=run.curve["accuracy"], name=run.name, mode="lines",
            hovertemplate="%{y:.1%} at %{x:,.5~g}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    buttons = []
    for name, xs in along.items():
        unknown = sum(x is None for x in xs)
        if unknown == len(xs):
            continue
        title = _AXES[name] + (f" (not known of {unknown} runs)" if unknown else "")
        change = [{"x": [x or [None] for x in xs]}, {"xaxis.title.text": title, "xaxis.autorange": True}]
        buttons.append({"label": name, "method": "update", "args": change})
    menu = {"buttons": buttons, "type": "buttons", "direction": "right", "x": 0, "xanchor": "left", "y": 1.15}
    figure.update_layout(
        updatemenus=[menu],
        xaxis_title=_AXES["simulated time"], yaxis_title="test accuracy", yaxis_tickformat=".0%", height=520,
    )  # fmt: skip
    return _styled(figure)


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


def traffic(runs: Sequence[Run]) -> go.Figure:
    """Bytes of each run: sent by the server, received by it, received by the clients."""
    figure = go.Figure()
    names = [run.name for run in runs]
    for key, label in (
        ("bytes_down", "sent by the server"),
        ("bytes_up", "received by the server"),
        ("bytes_client_down", "received by the clients"),
    ):
        figure.add_bar(x=names, y=[run.report[key] / 1e9 for run in runs], name=label)
    figure.update_layout(barmode="group", yaxis_title="GB", height=420)
    return _styled(figure)


def timeline(run: Run) -> go.Figure | None:
    """Who downloads, trains, uploads and waits when; None without the run's records."""
    arrivals = run.arrivals()
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
    """(start, length) in s."""
    sent = arrival["arrived_s"] - arrival["round_s"]
    download, train = arrival["download_s"], arrival["train_s"]
    return {
        "download": (sent, download),
        "train": (sent + download, train),
        "upload": (sent + download + train, arrival["round_s"] - download - train),
        "wait": (arrival["arrived_s"], arrival["waiting_s"]),
    }[phase]


def densities(run: Run) -> go.Figure:
    """The density of each client over simulated time, as steps."""
    figure = go.Figure()
    for client in run.report["clients"][:MOST_CLIENTS]:
        steps = client["densities"]
        figure.add_scatter(
            x=[*steps["t_s"], run.report["simulated_s"]], y=[*steps["percent"], steps["percent"][-1]], mode="lines",
            line_shape="hv", name=f"client {client['client']}",
        )  # fmt: skip
    figure.update_layout(xaxis_title="simulated time, s", yaxis_title="density, %", height=400)
    return _styled(figure)


def staleness(run: Run) -> go.Figure:
    """Mean and largest staleness of each client's updates, and how many there were."""
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

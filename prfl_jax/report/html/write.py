"""Writes the HTML page: Plotly's library, the figures as JSON, the tables, and the script that draws them."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly
from plotly.offline import get_plotlyjs

from prfl_jax.report.html import figures, tables
from prfl_jax.report.html.browser import SCRIPT, STYLE
from prfl_jax.report.html.groups import Group, group_runs
from prfl_jax.report.html.runs import MOST_ARRIVALS, Run
from prfl_jax.system.files import write_text

_ARRIVALS = 40_000  # of all timelines together
_LEAST_ARRIVALS = 200  # of each
_DIGITS = 9  # significant, of a number in a figure


def write_page(runs: Sequence[Run], out: Path, title: str = "Runs") -> None:
    """Writes one HTML file that works without a network.

    Raises:
      OSError: the file cannot be written.
    """
    groups = group_runs(runs)
    sections, compared = _compared(groups)
    body = f"""
<h1>{html.escape(title)}</h1>
{_notes(groups)}
{sections}
<h2>Clients</h2>
<p><label>Run: <select id="run">{_options(groups, runs)}</select></label></p>
<h3>Download, training, upload, wait</h3>
<div id="timeline" data-missing="{html.escape(_MISSING)}"></div>
<h3>Densities</h3>
<div id="densities" data-missing=""></div>
<h3>Staleness</h3>
<div id="staleness" data-missing=""></div>
<h2>Where the configs differ</h2>
{tables.differences(groups)}
<h2>How the runs ended</h2>
{tables.ends(groups)}
"""
    # Inside a script element, only "</" could end it early.
    shown = {"compared": compared, "runs": _single(runs)}
    data = json.dumps(shown, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")
    write_text(
        out,
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style>'
        f"<script>{get_plotlyjs()}</script></head><body>{body}"
        f'<script type="application/json" id="figures">{data}</script><script>{SCRIPT}</script></body></html>\n',
    )


_MISSING = "No timeline: the run's metrics.jsonl does not lie beside its report, or is of an older version."


def _notes(groups: Sequence[Group]) -> str:
    """The notes above the figures: the number of runs, and what lines, bands and rows show."""
    several = [group for group in groups if len(group.runs) > 1]
    again = sum(len(group.again) for group in groups)
    notes = []
    if several:
        notes.append(
            "Runs that differ only in their seed are one method: its line is the mean over the seeds, its band goes "
            "from their minimum to their maximum. Over simulated time both use the seconds of the evaluation grid "
            "that all seeds have, and end where the first seed ends; over the other axes each seed's curve is "
            "interpolated between its evaluations, never extrapolated."
        )
        notes.append(
            "Tables give the mean (minimum to maximum). “2 of 3” is the number of seeds that reached the value; the "
            "mean is over these."
        )
    if again:
        notes.append(
            f"{again} run(s) have the config and the seed of another run here. Of each seed the longest run counts; "
            "the others are shown only among the single runs."
        )
    total = sum(len(group.runs) + len(group.again) for group in groups)
    notes.insert(0, f"{total} runs, {len(groups)} methods and settings.")
    switch = (
        '<p><label class="all"><input type="checkbox" id="single"> Show every single run</label>'
        '<label class="all"><input type="checkbox" id="bands" checked> Show the bands</label></p>'
        if several or again
        else ""
    )
    return "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes) + switch


def _compared(groups: Sequence[Group]) -> tuple[str, dict[str, Any]]:
    """The sections that compare methods, one for each task and metric; their figures by the id of the HTML element."""
    text, shown = "", {}
    for place, task in enumerate(dict.fromkeys(group.task for group in groups)):
        own = [group for group in groups if group.task == task]
        after = f"-{place}" if place else ""
        metric = html.escape(own[0].metric.words)
        shown[f"headline{after}"] = _plain(figures.headline(own))
        shown[f"traffic{after}"] = _plain(figures.traffic(own))
        data = task.removesuffix(own[0].metric.words).removesuffix(", ")  # the heading has the metric already
        where = f": {html.escape(data)}" if data else ""
        text += f"""
<h2>{metric.capitalize()}{where}</h2>
<p class="note">Click on an entry of the legend to hide a method, twice to see it alone.</p>
<div id="headline{after}"></div>
<h3>Time to {metric}{where}</h3>
<p class="note">First simulated second of the evaluation grid at which the {metric} was reached, or a better one.</p>
{tables.times(own)}
<h3>Bytes{where}</h3>
<div id="traffic{after}"></div>
<details><summary>as numbers</summary>{tables.traffic(own)}</details>
"""
    return text, shown


def _options(groups: Sequence[Group], runs: Sequence[Run]) -> str:
    """The options of the list of runs, by group; a value is an index in `runs`."""
    places = {run.file: place for place, run in enumerate(runs)}
    text = ""
    for group in groups:
        members = (*group.runs, *group.again)
        own = "".join(f'<option value="{places[run.file]}">{html.escape(run.name)}</option>' for run in members)
        text += f'<optgroup label="{html.escape(group.title)}">{own}</optgroup>'
    return text


def _single(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The figures of each single run."""
    most = max(_LEAST_ARRIVALS, min(MOST_ARRIVALS, _ARRIVALS // len(runs)))
    found = []
    for run in runs:
        timeline = figures.timeline(run, most)
        found.append(
            {
                "timeline": None if timeline is None else _plain(timeline),
                "densities": _plain(figures.densities(run)),
                "staleness": _plain(figures.staleness(run)),
            }
        )
    return found


def _plain(figure: Any) -> Any:
    return _rounded(json.loads(plotly.io.to_json(figure, validate=False)))


def _rounded(value: Any) -> Any:
    """`value` with its numbers rounded to `_DIGITS` digits, which is more than can be seen."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return value

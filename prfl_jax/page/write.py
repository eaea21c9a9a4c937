"""The page: Plotly's library, the figures as JSON, the tables, and what draws them."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly
from plotly.offline import get_plotlyjs

from prfl_jax.files import write_text
from prfl_jax.page import figures, tables
from prfl_jax.page.runs import Run

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1200px; padding: 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: 0.9rem; }
th, td { padding: 0.3rem 0.7rem; text-align: left; border-bottom: 1px solid #ddd; white-space: nowrap; }
th { border-bottom: 2px solid #888; } p.note { color: #666; }
"""
# Figures of single runs are drawn when their run is chosen: twenty at once would be slow.
_SCRIPT = """
const figures = JSON.parse(document.getElementById("figures").textContent);
const draw = (id, figure) => {
  const place = document.getElementById(id);
  if (!figure) { Plotly.purge(place); place.textContent = place.dataset.missing; return; }
  if (!place.classList.contains("js-plotly-plot")) place.textContent = "";
  Plotly.react(place, figure.data, figure.layout, {responsive: true, displaylogo: false});
};
draw("accuracy", figures.accuracy);
draw("traffic", figures.traffic);
const choice = document.getElementById("run");
const show = () => {
  for (const name of ["timeline", "densities", "staleness"]) draw(name, figures.runs[choice.value][name]);
};
choice.addEventListener("change", show);
show();
document.body.dataset.drawn = "yes";
"""


def write_page(runs: Sequence[Run], out: Path, title: str = "Runs") -> None:
    """Writes one HTML file that needs no network.

    Raises:
      OSError: it cannot be written.
    """
    single = []
    for run in runs:
        timeline = figures.timeline(run)
        single.append(
            {
                "timeline": None if timeline is None else _plain(timeline),
                "densities": _plain(figures.densities(run)),
                "staleness": _plain(figures.staleness(run)),
            }
        )
    shown = {"accuracy": _plain(figures.accuracy(runs)), "traffic": _plain(figures.traffic(runs)), "runs": single}
    options = "".join(f'<option value="{k}">{html.escape(run.name)}</option>' for k, run in enumerate(runs))
    missing = "No timeline: the run's metrics.jsonl does not lie beside its report, or is of an older version."
    body = f"""
<h1>{html.escape(title)}</h1>
<h2>Accuracy</h2>
<p class="note">Click on an entry of the legend to hide a curve, twice to see it alone.</p>
<div id="accuracy"></div>
<h2>Time to accuracy</h2>
<p class="note">First simulated second of the evaluation grid at which the accuracy was reached.</p>
{tables.times(runs)}
<h2>Bytes</h2>
<div id="traffic"></div>
<h2>Clients</h2>
<p><label>Run: <select id="run">{options}</select></label></p>
<h3>Download, training, upload, wait</h3>
<div id="timeline" data-missing="{html.escape(missing)}"></div>
<h3>Densities</h3>
<div id="densities" data-missing=""></div>
<h3>Staleness</h3>
<div id="staleness" data-missing=""></div>
<h2>Where the configs differ</h2>
{tables.differences(runs)}
<h2>How the runs ended</h2>
{tables.ends(runs)}
"""
    # inside a script element only "</" could end it early
    data = json.dumps(shown, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")
    write_text(
        out,
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<link rel="icon" href="data:,"><style>{_STYLE}</style>'
        f"<script>{get_plotlyjs()}</script></head><body>{body}"
        f'<script type="application/json" id="figures">{data}</script><script>{_SCRIPT}</script></body></html>\n',
    )


def _plain(figure: Any) -> Any:
    return json.loads(plotly.io.to_json(figure, validate=False))

"""The style sheet of an HTML page, and the JavaScript that draws its figures and reacts to its controls."""

from __future__ import annotations

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1280px; padding: 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
h3 { font-size: 1.02rem; margin: 1.4rem 0 0.4rem; }
p.note { color: #555; max-width: 52rem; margin: 0.4rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.88rem; }
th, td { padding: 0.3rem 0.7rem; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top; }
td { white-space: nowrap; font-variant-numeric: tabular-nums; }
td.long { white-space: normal; min-width: 14rem; max-width: 24rem; }
thead .name { max-width: 11rem; }
thead th { border-bottom: 2px solid #888; white-space: nowrap; } thead .name { white-space: normal; }
th:first-child { position: sticky; left: 0; background: #fff; }
.name { display: flex; align-items: baseline; width: max-content; max-width: 19rem; overflow-wrap: anywhere; }
tbody th { font-weight: normal; white-space: normal; }
tr.single > * { color: #666; font-size: 0.92em; border-bottom-color: #eee; }
tr.single th { padding-left: 1.8rem; }
.swatch { margin-right: 0.5rem; vertical-align: middle; flex: none; }
button { font: inherit; border: 1px solid #bbb; border-radius: 4px; background: #f6f6f6; padding: 0 0.5rem; }
button::before { content: "+ "; } button[aria-expanded="true"]::before { content: "- "; }
select { font: inherit; max-width: 100%; }
label.all { display: inline-block; margin: 0.3rem 1.4rem 0.3rem 0; }
details { margin: 0.5rem 0; } summary { cursor: pointer; color: #555; }
@media (max-width: 800px) { body { padding: 0.6rem; } th, td { padding: 0.25rem 0.45rem; }
  .name { max-width: 9rem; } }
"""
# Figures of single runs are drawn when their run is chosen: twenty at once would be slow.
SCRIPT = """
const figures = JSON.parse(document.getElementById("figures").textContent);
const NARROW = 800;
const narrow = () => document.documentElement.clientWidth < NARROW;
const legendBelow = (figure) => {  // beside the plot there is no room for names
  if (!narrow() || !figure.data.some((trace) => trace.showlegend !== false && trace.name)) return figure;
  const shown = figure.data.filter((trace) => trace.showlegend !== false).length;
  const legend = {...figure.layout.legend, orientation: "h", y: -0.16, yanchor: "top", x: 0, xanchor: "left"};
  const height = Math.max(380, Math.min(figure.layout.height, 460)) + 21 * Math.ceil(shown / 2);
  const margin = {...figure.layout.margin, l: 50, r: 8};
  return {data: figure.data, layout: {...figure.layout, legend, height, margin}};
};
const draw = (id, figure) => {
  const place = document.getElementById(id);
  if (!figure) { Plotly.purge(place); place.textContent = place.dataset.missing; return; }
  if (!place.classList.contains("js-plotly-plot")) place.textContent = "";
  const {data, layout} = legendBelow(figure);
  Plotly.react(place, data, layout, {responsive: true, displaylogo: false});
};
const compared = Object.keys(figures.compared);
const drawCompared = () => { for (const id of compared) draw(id, figures.compared[id]); };
drawCompared();
const choice = document.getElementById("run");
const show = () => {
  for (const name of ["timeline", "densities", "staleness"]) draw(name, figures.runs[choice.value][name]);
};
choice.addEventListener("change", show);
show();
let wasNarrow = narrow();
window.addEventListener("resize", () => {
  if (narrow() === wasNarrow) return;
  wasNarrow = narrow();
  drawCompared();
  show();
});
const buttons = [...document.querySelectorAll("button[data-group]")];
const open = (group, on) => {  // the single runs of a group, in tables and figures
  for (const row of document.querySelectorAll(`tr.single[data-group="${group}"]`)) row.hidden = !on;
  for (const button of buttons) if (button.dataset.group === group) button.setAttribute("aria-expanded", String(on));
  for (const id of compared) {
    const place = document.getElementById(id);
    const own = place.data.map((trace, k) => [trace.meta, k]).filter(([meta]) => meta && String(meta.group) === group);
    const runs = own.filter(([meta]) => meta.part === "run").map(([, k]) => k);
    if (!runs.length) continue;
    const [, line] = own.find(([meta]) => meta.part === "line");
    Plotly.restyle(place, {visible: on ? (place.data[line].visible ?? true) : false}, runs);
  }
};
for (const button of buttons) {
  button.addEventListener("click", () => open(button.dataset.group, button.getAttribute("aria-expanded") !== "true"));
}
const bands = document.getElementById("bands");
if (bands) bands.addEventListener("change", () => {
  for (const id of compared) {
    const place = document.getElementById(id);
    const own = place.data.map((trace, k) => [trace.meta, k]).filter(([meta]) => meta && meta.part === "band");
    for (const [meta, k] of own) {
      const line = place.data.find((trace) => trace.meta.part === "line" && trace.meta.group === meta.group);
      Plotly.restyle(place, {visible: bands.checked ? (line.visible ?? true) : false}, [k]);
    }
  }
});
const all = document.getElementById("single");
if (all) all.addEventListener("change", () => {
  for (const group of new Set(buttons.map((button) => button.dataset.group))) open(group, all.checked);
});
document.body.dataset.drawn = "yes";
"""

"""Makes the tables of an HTML page: a row for each group, and hidden below it a row for each of its runs."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from prfl_jax.report.groups import settings, value_text
from prfl_jax.report.html.figures import BYTES
from prfl_jax.report.html.groups import Group
from prfl_jax.report.html.runs import Run
from prfl_jax.report.html.spread import Spread
from prfl_jax.report.masks import server_mask_alone
from prfl_jax.report.names import (
    bytes_text,
    duration_text,
    headline_name,
    number_text,
    percent_text,
    seconds_text,
)

_WRAPS = ' class="long"'
_AS_LONG = 0.98  # of the longest run of a group: if one is shorter, the table shows the lengths
_NOTHING = "-"
LONG = 80  # characters of a value; longer ones are shortened
_STROKES = {
    "solid": "", "dash": "7 4", "dot": "2 3", "dashdot": "7 3 2 3", "longdash": "11 4", "longdashdot": "11 3 2 3",
}  # fmt: skip


def swatch(group: Group) -> str:
    """A small picture of a group's line."""
    dashes = f' stroke-dasharray="{_STROKES[group.dash]}"' if _STROKES[group.dash] else ""
    return (
        '<svg class="swatch" width="30" height="10" aria-hidden="true"><line x1="0" y1="5" x2="30" y2="5" '
        f'stroke="{group.colour}" stroke-width="3"{dashes}/></svg>'
    )


def _named(group: Group, name: str, scope: str = "row") -> str:
    return f'<th scope="{scope}"><div class="name">{swatch(group)}<span>{name}</span></div></th>'


def _head(cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in cells) + "</tr>"


def _cells(values: Sequence[str]) -> str:
    return "".join(f"<td{_WRAPS if len(value) > 45 else ''}>{html.escape(value)}</td>" for value in values)


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    return f'<div class="wide"><table><thead>{_head(head)}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def _grouped(
    head: Sequence[str], groups: Sequence[Group], summary: Callable[[Sequence[Run]], list[str]], title: bool = False
) -> str:
    """A table with a row for each group, and below it one for each of its runs if it has several.

    Args:
      head: the names of the columns.
      groups: of the rows.
      summary: (runs) -> the cells of a row.
      title: whether groups have the name that is unique on the page instead of within their task.
    """
    rows = []
    for group in groups:
        name = html.escape(group.title if title else group.name)
        single = [(run, "") for run in group.runs if len(group.runs) > 1 or group.again]
        single += [(run, ", again: not in the mean") for run in group.again]
        number, count = group.number, f"{len(group.runs)} seeds" if len(group.runs) > 1 else f"seed {group.seeds}"
        if single:
            count = f'<button type="button" data-group="{number}" aria-expanded="false">{count}</button>'
        rows.append(f"<tr>{_named(group, name)}<td>{count}</td>{_cells(summary(group.runs))}</tr>")
        for run, note in single:
            said = html.escape(f"seed {run.report['seed']}{note}")
            where = html.escape(str(run.file))
            rows.append(
                f'<tr class="single" data-group="{number}" title="{where}" hidden>'
                f"{_named(group, html.escape(run.name))}<td>{said}</td>{_cells(summary([run]))}</tr>"
            )
    return _table(head, rows)


def times(groups: Sequence[Group]) -> str:
    """The table of time to each threshold (simulated s of the evaluation grid), with the final value and its model.

    Where runs have masks that are chosen during them, it says what these keep in the end.
    """
    runs = [run for group in groups for run in (*group.runs, *group.again)]
    metric = groups[0].metric
    levels = metric.easiest_first(list({level for run in runs for level in run.report[metric.times]}))

    def summary(runs: Sequence[Run]) -> list[str]:
        cells = []
        for level in levels:
            asked = [run for run in runs if level in run.report[metric.times]]
            reached = Spread.of([run.report[metric.times][level] for run in asked])
            cells.append(reached.text(seconds_text, "never" if asked else "-"))
        end = Spread.of([run.report["final"]["metric"] for run in runs])
        models = ", ".join(sorted({headline_name(run.report) for run in runs}))
        length = Spread.of([run.report["simulated_s"] for run in runs])
        after = f", after {length.text(seconds_text)}" if length.low < _AS_LONG * length.high else ""
        return [*cells, end.text(metric.text) + after, models, *(write(runs) for _, write in kept)]

    kept = [(name, write) for name, write in _KEPT if any(write([run]) != _NOTHING for run in runs)]
    head = ["method", "runs", *map(metric.level_text, levels), f"{metric.words} at the end", "of the"]
    head += [name for name, _ in kept]
    return _grouped(head, groups, summary)


def _of_masks(get: Callable[[Any], float | None], write: Callable[[float], str]) -> Callable[[Sequence[Run]], str]:
    """(runs) -> their cell of what `get` finds in a report with `masks`."""

    def cell(runs: Sequence[Run]) -> str:
        found = [get(run.report) if "masks" in run.report else None for run in runs]
        return Spread.of(found).text(write, _NOTHING)

    return cell


def _initial(key: str) -> Callable[[Any], float | None]:
    """What the report of the initial stage says under a key; None where there was none."""
    return lambda report: (report["masks"]["initial"] or {}).get(key)


def _initial_s(runs: Sequence[Run]) -> str:
    stages = [run.report["masks"]["initial"] for run in runs if "masks" in run.report]
    open_ends = sum(stage is not None and not stage["ended"] for stage in stages)
    said = f", {f'{open_ends} of {len(runs)} ' if len(runs) > 1 else ''}not ended" if open_ends else ""
    return _of_masks(_initial("t_s"), seconds_text)(runs) + said


def _own_mean(report: Any) -> float | None:
    """The mean over all clients' own masks in the end; None where they have none."""
    return None if server_mask_alone(report) else report["masks"]["curve"]["clients_mean"][-1]


# columns of what masks keep in the end; one that no run fills is left out
_KEPT: tuple[tuple[str, Callable[[Sequence[Run]], str]], ...] = (
    ("server's mask keeps", _of_masks(lambda report: report["masks"]["retention"], percent_text)),
    ("its size", _of_masks(lambda report: report["masks"]["server_kib"], lambda kib: f"{kib:,.0f} KiB")),
    ("initial rounds", _of_masks(_initial("rounds"), number_text)),
    ("their time", _initial_s),
    ("own masks keep, mean", _of_masks(_own_mean, percent_text)),
    ("own model, mean", _of_masks(lambda report: report.get("own_models", {}).get("accuracy_mean"), percent_text)),
)


def traffic(groups: Sequence[Group]) -> str:
    """The table of bytes."""

    def summary(runs: Sequence[Run]) -> list[str]:
        return [Spread.of([run.report[key] for run in runs]).text(bytes_text) for key in BYTES]

    return _grouped(["method", "runs", *BYTES.values()], groups, summary)


def ends(groups: Sequence[Group]) -> str:
    """The table of how the runs ended, how long they were, and the device and commit that computed them."""

    def summary(runs: Sequence[Run]) -> list[str]:
        reports = [run.report for run in runs]

        def spread(get: Callable[[Any], Any], write: Callable[[float], str]) -> str:
            return Spread.of([get(report) for report in reports]).text(write)

        return [
            _counted([_how(report) for report in reports]),
            spread(lambda r: r["windows"], lambda v: f"{v:,.0f}"),
            spread(lambda r: r["simulated_s"], seconds_text),
            spread(lambda r: r["client_updates"], lambda v: f"{v:,.0f}"),
            spread(lambda r: r["host"]["total_s"], duration_text),
            spread(lambda r: r["peak_memory_mb"], lambda v: f"{v:,.0f} MB"),
            _counted([_device(report) for report in reports]),
            _counted([str(report["commit"])[:10] for report in reports]),
        ]

    head = ["method", "runs", "ended by", "windows", "simulated", "updates", "host time", "memory", "device", "commit"]
    return _grouped(head, groups, summary, title=True)


def _how(report: Any) -> str:
    ended = report["ended"]
    return str(ended["how"]) + (f": {ended['detail']}" if ended.get("detail") else "")


def _device(report: Any) -> str:
    device = report["device"]
    return str(device.get("kind") if isinstance(device, dict) else device)


def _counted(words: Sequence[str]) -> str:
    """Texts of several runs: one text if all are equal, else each with its number."""
    counts = Counter(words)
    if len(counts) == 1:
        return words[0]
    return "; ".join(f"{count} x {word}" for word, count in counts.items())


def differences(groups: Sequence[Group]) -> str:
    """The table of the config keys in which the runs differ."""
    flat = [[settings(run.report) for run in (*group.runs, *group.again)] for group in groups]
    keys = sorted({key for found in flat for values in found for key in values})
    said = {key: [_distinct([values.get(key) for values in found]) for found in flat] for key in keys}
    apart = [key for key in keys if len({value_text(values.get(key)) for found in flat for values in found}) > 1]
    if not apart:
        return "<p>All runs have the same config.</p>"
    heads = "".join(_named(group, html.escape(group.title), "col") for group in groups)
    rows = "".join(f'<tr><th scope="row">{html.escape(key)}</th>{_cells(said[key])}</tr>' for key in apart)
    return f'<div class="wide"><table><thead><tr><th>key</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


def _distinct(values: Sequence[Any]) -> str:
    """The distinct values, in their order."""
    return ", ".join(_text(value) for value in {value_text(value): value for value in values}.values())


def _text(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONG else text[: LONG - 1] + "…"

"""The tables of a page, as HTML."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from prfl_jax.page.runs import Run
from prfl_jax.report.names import duration_text, percent_text, seconds_text

LONG = 80  # letters of a value, then it is cut


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def times(runs: Sequence[Run]) -> str:
    """The first simulated second of the evaluation grid at each accuracy, and the accuracy at the end."""
    levels = sorted({level for run in runs for level in run.report["time_to_accuracy"]}, key=float)
    rows = []
    for run in runs:
        reached = run.report["time_to_accuracy"]
        cells = ["-" if level not in reached else seconds_text(reached[level], "never") for level in levels]
        rows.append([run.name, *cells, percent_text(run.report["final"]["accuracy"])])
    return _table(["run", *(percent_text(float(level), 0) for level in levels), "at the end"], rows)


def ends(runs: Sequence[Run]) -> str:
    """How each run ended, how long it was, and what made it."""
    rows = []
    for run in runs:
        report, ended = run.report, run.report["ended"]
        how = ended["how"] + (f": {ended['detail']}" if ended.get("detail") else "")
        rows.append(
            [
                run.name, how, f"{report['windows']:,}",
                seconds_text(report["simulated_s"]), f"{report['client_updates']:,}",
                duration_text(report["host"]["total_s"]), f"{report['peak_memory_mb']:,.0f} MB",
                str(report["device"].get("kind")), str(report["commit"])[:10],
            ]
        )  # fmt: skip
    head = ["run", "ended by", "windows", "simulated", "updates", "host time", "memory", "device", "commit"]
    return _table(head, rows)


def differences(runs: Sequence[Run]) -> str:
    """The config keys in which the runs differ."""
    flat = [dict(_leaves(run.report["config"])) for run in runs]
    keys = sorted({key for values in flat for key in values})
    apart = [key for key in keys if len({_text(values.get(key)) for values in flat}) > 1]
    if not apart:
        return "<p>All runs have the same config.</p>"
    rows = [[key, *(_text(values.get(key)) for values in flat)] for key in apart]
    return _table(["key", *(run.name for run in runs)], rows)


def _leaves(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in config.items():
        if isinstance(value, Mapping) and value and "thinned_from" not in value:
            found += _leaves(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def _text(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONG else text[: LONG - 1] + "…"

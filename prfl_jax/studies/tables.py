"""Writes tables as Markdown and CSV: the spread of several seeds, and what all tables of a study say below."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from prfl_jax.studies.columns import Column
from prfl_jax.studies.reports import Report, diverged
from prfl_jax.studies.study import Material
from prfl_jax.system.files import write_text


def write_table(
    path: Path, title: str, header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]
) -> None:
    """Writes `path`.md (with title and notes) and `path`.csv."""
    lines = [f"# {title}", "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["", *(f"- {note}" for note in notes)]
    write_text(path.with_suffix(".md"), "\n".join(lines).rstrip() + "\n")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path.with_suffix(".csv"), text.getvalue())


def spread(values: Sequence[float], form: str, of: int | None = None) -> str:
    """Mean, and (least to most) where there are several; says so where they are fewer than `of` seeds."""
    if not values:
        return "-"
    mean = format(statistics.fmean(values), form)
    text = mean if len(values) == 1 else f"{mean} ({format(min(values), form)} to {format(max(values), form)})"
    return text if of is None or len(values) == of else f"{text}, {len(values)} of {of} seeds"


def seeds_text(reports: Sequence[Report]) -> str:
    """How many seeds there are, and how many of them were not finite."""
    bad = diverged(reports)
    return f"{len(reports)}, of which {len(bad)} not finite" if bad else str(len(reports))


def caption(material: Material, said: Sequence[str], setting: Callable[[Column], str]) -> list[str]:
    """What all tables of a study say: the mark, `said`, how each column is set up, on what the runs were made."""
    reports = material.reports
    every = [report for found in reports.values() for report in found]
    commits = sorted({str(report["commit"])[:12] for report in every})
    machines = sorted({f"{r['device']['kind']}, {r['device']['host_cores']} cores" for r in every})
    model = sorted({report["final"]["model"] for report in every})
    return [
        *([material.preset.mark] if material.preset.mark else []),
        *said,
        *(setting(column) for column in material.preset.columns if any(key == column.key for key, _ in reports)),
        f"server model: {', '.join(model)}; machine: {'; '.join(machines)}; commit: {', '.join(commits)}",
    ]

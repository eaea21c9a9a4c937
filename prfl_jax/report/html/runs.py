"""Finds the runs that an HTML page shows: their reports, and their records if these are still there."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prfl_jax.report import present_version, read_metrics
from prfl_jax.report.metric import Headline
from prfl_jax.report.names import strategy_name
from prfl_jax.system.errors import UserError
from prfl_jax.system.files import user_path

MOST_ARRIVALS = 1500  # of a timeline, which goes on to the window's end; more would make the page slow


@dataclasses.dataclass(frozen=True)
class Run:
    """A run on the page.

    Attributes:
      name: short, and unique among the runs of the page.
      file: the path of its report.
      report: the content of the file, in the form of the present version.
    """

    name: str
    file: Path
    report: dict[str, Any]

    @property
    def curve(self) -> dict[str, list[Any]]:
        """The headline model's curve."""
        curve: dict[str, list[Any]] = self.report["curves"][self.report["final"]["model"]]
        return curve

    @property
    def metric(self) -> Headline:
        """Its headline metric."""
        return Headline.of(self.report)

    @property
    def values(self) -> list[float | None]:
        """The headline metric at each point of the curve."""
        return self.curve[self.metric.name]

    @property
    def compared(self) -> bool:
        """Whether it lies in `compare/` of another run, whose length it has."""
        return self.file.parent.parent.name == "compare" and self.file.name == "report.json"

    def host_s(self) -> list[float | None] | None:
        """Host seconds at each point of the curve; None if there are no records beside the report."""
        found = {record["t_s"]: record.get("host_s") for record in self._records("eval")}
        return [found.get(t_s) for t_s in self.curve["t_s"]] if found else None

    def arrivals(self, most: int = MOST_ARRIVALS) -> list[dict[str, Any]]:
        """The first arrivals with client, window and times in s; empty if there are no records, or only older ones."""
        found: list[dict[str, Any]] = []
        for record in self._records("window"):
            if "arrived_s" not in record:
                return []
            columns = ("arrivals", "arrived_s", "round_s", "download_s", "train_s", "waiting_s", "staleness")
            for values in zip(*(record[name] for name in columns), strict=True):
                found.append({"window": record["window"], **dict(zip(("client", *columns[1:]), values, strict=True))})
            if len(found) >= most:
                break
        return found

    def _records(self, kind: str) -> Iterable[dict[str, Any]]:
        file = self.file.with_name("metrics.jsonl")
        if self.file.name == "report.json" and file.exists():
            yield from (record for record in read_metrics(file) if record["kind"] == kind)


def find_runs(folders: Sequence[str]) -> list[Run]:
    """Finds all reports in these folders and below them; a folder may hold a run, a sweep, or reports.

    Raises:
      UserError: there is none in one of them, or a file cannot be read.
    """
    found: dict[Path, dict[str, Any]] = {}
    for folder in folders:
        path = user_path("FOLDER", folder)
        there = [path] if path.is_file() else sorted(path.rglob("*.json"))
        reports = {file: _report(file) for file in there if "checkpoints" not in file.parts}
        if not any(reports.values()):
            raise UserError(f"{folder}: no report there; give the folder of a run, a sweep or of reports")
        found |= {file: report for file, report in reports.items() if report is not None}
    return [Run(name, file, report) for name, (file, report) in zip(_names(found), found.items(), strict=True)]


def _report(file: Path) -> dict[str, Any] | None:
    """The report of a file, in the form of the present version; None if it is no report."""
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); give folders that can be read") from None
    except ValueError:
        if file.name == "report.json":
            raise UserError(f"{file}: not a report; remove it, or run its workdir again") from None
        return None
    needed = {"strategy", "curves", "final", "clients", "config", "ended"}
    if not (isinstance(found, dict) and needed <= found.keys()):
        return None
    report = present_version(found, file)
    return report if "metric" in report else None


def _names(reports: Mapping[Path, dict[str, Any]]) -> list[str]:
    """Names of runs: method and seed, and the part of the path that differs if these are not unique."""
    short = [f"{strategy_name(report['strategy'])}, seed {report['seed']}" for report in reports.values()]
    shared = os.path.commonpath([file.absolute().parent for file in reports])
    names = []
    for name, file in zip(short, reports, strict=True):
        if short.count(name) > 1:
            inside = file.absolute().relative_to(shared)
            place = inside.parent if file.name == "report.json" else inside.with_suffix("")
            name = f"{name} ({place})"
        names.append(name)
    return names

"""Reads and writes what a run leaves: metrics, report, figure, summary, HTML page; and its progress bar.

Names are imported when they are first used, so that importing this package is quick and matplotlib is imported only
where something is drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prfl_jax.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from prfl_jax.report.build import RunInfo, build_report, comparable
    from prfl_jax.report.figure import run_figure
    from prfl_jax.report.metrics import MetricsWriter, metrics_line, read_metrics
    from prfl_jax.report.progress import Progress
    from prfl_jax.report.schema import SCHEMA_VERSION, load_schema, present_version, read_report, write_report
    from prfl_jax.report.summary import summary_text

__all__ = [
    "SCHEMA_VERSION",
    "MetricsWriter",
    "Progress",
    "RunInfo",
    "build_report",
    "comparable",
    "load_schema",
    "metrics_line",
    "present_version",
    "read_metrics",
    "read_report",
    "run_figure",
    "summary_text",
    "write_report",
]

_HOMES = {
    "SCHEMA_VERSION": "schema",
    "MetricsWriter": "metrics",
    "Progress": "progress",
    "RunInfo": "build",
    "build_report": "build",
    "comparable": "build",
    "load_schema": "schema",
    "metrics_line": "metrics",
    "present_version": "schema",
    "read_metrics": "metrics",
    "read_report": "schema",
    "run_figure": "figure",
    "summary_text": "summary",
    "write_report": "schema",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)

"""Makes one self-contained HTML page that compares any number of runs, with Plotly."""

from prfl_jax.report.html.groups import Group, group_runs
from prfl_jax.report.html.runs import Run, find_runs
from prfl_jax.report.html.write import write_page

__all__ = ["Group", "Run", "find_runs", "group_runs", "write_page"]

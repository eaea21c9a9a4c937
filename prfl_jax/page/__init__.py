"""One self-contained HTML page about any number of runs, made with Plotly."""

from prfl_jax.page.runs import Run, find_runs
from prfl_jax.page.write import write_page

__all__ = ["Run", "find_runs", "write_page"]

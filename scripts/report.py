"""Writes one HTML page about any number of runs, which opens without a network.

    python scripts/report.py runs/quickstart --out=report.html
    python scripts/report.py runs/sweep-quickstart-rate_and_steps results/cpu/runs/mnist_by_writer --out=report.html

Each folder may be that of a run or of a sweep, or hold reports. Runs that differ only in their seed are shown
as one method: a mean, a band from the least to the most, a row with its spread; single runs are shown on
demand. The page has the metric (accuracy, perplexity) over simulated time, windows, bytes or host time, the time
to each threshold, bytes, the activity of each client over time, densities, staleness, differences of the configs
and the ends of the runs. Metrics are not mixed: each has sections of its own. The activity of clients and host
time need the run's own folder, with its metrics.jsonl.
"""

from __future__ import annotations

import prfl_jax.system.early  # noqa: F401  # isort: skip  (before what takes long)

from absl import flags

from prfl_jax.config import cli
from prfl_jax.system.errors import UserError
from prfl_jax.system.files import output_file

_OUT = flags.DEFINE_string("out", None, "the HTML file to write")
_TITLE = flags.DEFINE_string("title", "Runs", "title of the page")


def main(folders: list[str]) -> None:
    if not folders:
        raise UserError("no folder is given: allowed is scripts/report.py FOLDER [FOLDER ...] --out=FILE.html")
    out = output_file("--out", _OUT.value, "report.html", "HTML")
    try:
        import plotly  # noqa: F401
    except ModuleNotFoundError:
        raise UserError("scripts/report.py: needs Plotly; pip install -e '.[report]'") from None
    from prfl_jax.report.html import find_runs, write_page

    runs = find_runs(folders)
    write_page(runs, out, _TITLE.value)
    print(f"{len(runs)} runs: {out}")


if __name__ == "__main__":
    cli.run_with_arguments(main)

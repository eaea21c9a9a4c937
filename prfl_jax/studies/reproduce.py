"""Runs what `scripts/reproduce.py` asks for and is missing, then makes tables and figures from all runs."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from prfl_jax.startup import before_jax
from prfl_jax.studies.columns import Preset
from prfl_jax.studies.runs import Runner, check_out, load, reports_of, wanted
from prfl_jax.studies.study import Material, Study, find_study
from prfl_jax.system.errors import UserError
from prfl_jax.system.files import check_folder, user_path
from prfl_jax.system.signals import Interrupted, InterruptGuard, leave

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Request:
    """What the command line asks for; see `scripts/reproduce.py`."""

    what: str = "all"
    preset: str = "cpu"
    paper: str = "prfl"
    seeds: int = 1
    out: str | None = None
    only: Sequence[str] = ()
    settings: Sequence[str] = ()
    changes: Sequence[str] = ()
    budget_s: float | None = None
    work: str | None = None

    def check(self) -> None:
        """Raises UserError for a value that is not allowed."""
        find_study(self.paper).chosen(self.what)
        if self.seeds < 1:
            raise UserError(f"--seeds={self.seeds}: allowed is a whole number of at least 1")
        if self.budget_s is not None and not self.budget_s > 0:
            raise UserError(f"--budget_s={self.budget_s:g}: allowed is a number above 0")
        for flag in ("out", "work"):
            if getattr(self, flag) == "":
                raise UserError(f"--{flag} is empty: allowed is a folder")
        if (self.settings or self.changes) and not self.out:
            raise UserError("--settings and --change: allowed with --out=DIR, so that the preset's own tables stay")


def reproduce(request: Request) -> int:
    """Makes tables and figures, running what is missing first; returns the exit code.

    Raises:
      UserError: a flag's value, a data set that is not there, a report that cannot be read.
    """
    request.check()
    before_jax()
    study = find_study(request.paper)
    preset = study.preset(request.preset)
    if request.settings:
        preset = preset.only(request.settings)
    if request.changes:
        preset = preset.changed(request.changes)
    results, folder = ROOT / "results", study.prefix + preset.name
    out = user_path("--out", request.out or (Path("runs") if preset.name == "smoke" else results) / folder)
    work = user_path("--work", request.work or f"runs/reproduce-{folder}")
    check_out(out, preset.name, results)
    chosen = study.chosen(request.what)
    runs = wanted(preset.columns, study.methods_for(chosen, request.only, preset.columns), request.seeds)
    reports_of(preset.columns, out)  # a file that is no report is refused before anything is run
    if any(load(run, out) is None for run in runs):
        check_folder("--work", work)
    left_out = []
    with InterruptGuard(shlex.join([sys.executable, *sys.argv])) as guard:
        try:
            left_out = Runner(out, work, request.budget_s, guard, study.keep).run(runs)
            with guard.nothing_to_save():
                render(study, chosen, preset, out, request.seeds)
        except Interrupted as signal:
            print(f"\n{signal}: what was done is saved; to resume: {guard.again}", file=sys.stderr)
            leave(128 + signal.signum)
    for run in left_out:
        print(f"not run, it would not have ended in time: {run.name}")
    print(f"\n{', '.join(chosen)}: {out}")
    return 0


def render(study: Study, what: Sequence[str], preset: Preset, out: Path, seeds: int) -> None:
    """Tables and figures from all reports there are, whichever method or seed was asked for now."""
    reports = reports_of(preset.columns, out)
    seeds = max([seeds, *(1 + report["seed"] for found in reports.values() for report in found)])
    material = Material(out, preset, reports, seeds)
    products = [study.products[name] for name in what]
    for product in products:
        if reports or not product.from_runs:
            product.make(material)
    if not reports and any(product.from_runs for product in products):
        print(f"{out}: there is no report yet, so no table and no figure of runs")

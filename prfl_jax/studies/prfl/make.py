"""Runs what `scripts/reproduce.py` asks for and is missing, then makes tables and figures from all runs."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prfl_jax.startup import before_jax
from prfl_jax.studies.prfl import paper, presets
from prfl_jax.studies.prfl.presets import Column, Preset
from prfl_jax.studies.runs import Runner, check_out, load, reports_of, wanted
from prfl_jax.system.errors import UserError
from prfl_jax.system.files import check_folder, user_path
from prfl_jax.system.signals import Interrupted, InterruptGuard, leave

WHAT = ("table3", "table4", "table5", "fig8", "fig9", "fig10")
ROOT = Path(__file__).resolve().parents[3]


def preset_named(name: str) -> Preset:
    """`full` (with FEMNIST where it is prepared), `cpu` or `smoke`.

    Raises:
      UserError: another name.
    """
    if name == "full":
        from prfl_jax.config.defaults import default_config
        from prfl_jax.data import data_dir

        return presets.full((data_dir(default_config().data) / "femnist").is_dir())
    made: dict[str, Callable[[], Preset]] = {"cpu": presets.cpu, "smoke": presets.smoke}
    if name not in made:
        raise UserError(f"--preset={name}: allowed is one of full, {', '.join(made)}")
    return made[name]()


def methods_for(what: Sequence[str], only: Sequence[str], columns: Sequence[Column]) -> Callable[[Column], list[str]]:
    """Which methods of a column are run: those of `only`, else those that the paper has in these tables and figures.

    Raises:
      UserError: `only` names a method that no column has.
    """
    known = {method: None for column in columns for method in column.methods}
    for name in only:
        if name not in known:
            raise UserError(f"--only={name}: allowed are {', '.join(known)}")
    needed = set(only)
    if not only:
        if {"table4", "table5", "fig9"} & set(what):
            needed |= set(paper.MAIN)
        if "fig10" in what:
            needed |= {"prfl", *paper.ABLATIONS, *paper.EXTRAS}
    return lambda column: [method for method in column.methods if method in needed]


@dataclasses.dataclass(frozen=True)
class Request:
    """What the command line asks for; see `scripts/reproduce.py`."""

    what: str = "all"
    preset: str = "cpu"
    seeds: int = 1
    out: str | None = None
    only: Sequence[str] = ()
    settings: Sequence[str] = ()
    changes: Sequence[str] = ()
    budget_s: float | None = None
    work: str | None = None

    def check(self) -> None:
        """Raises UserError for a value that is not allowed."""
        if self.what != "all" and self.what not in WHAT:
            raise UserError(f"--what={self.what}: allowed is one of {', '.join(WHAT)}, all")
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
    preset = preset_named(request.preset)
    if request.settings:
        preset = preset.only(request.settings)
    if request.changes:
        preset = preset.changed(request.changes)
    results = ROOT / "results"
    default = Path("runs/smoke") if preset.name == "smoke" else results / preset.name
    out = user_path("--out", request.out or default)
    work = user_path("--work", request.work or f"runs/reproduce-{preset.name}")
    check_out(out, preset.name, results)
    chosen = list(WHAT) if request.what == "all" else [request.what]
    methods = methods_for(chosen, request.only, preset.columns)
    runs = wanted(preset.columns, methods, request.seeds)
    reports_of(preset.columns, out)  # a file that is no report is refused before anything is run
    if any(load(run, out) is None for run in runs):
        check_folder("--work", work)
    left_out = []
    with InterruptGuard(shlex.join([sys.executable, *sys.argv])) as guard:
        try:
            left_out = Runner(out, work, request.budget_s, guard).run(runs)
            with guard.nothing_to_save():
                render(chosen, preset, out, request.seeds)
        except Interrupted as signal:
            print(f"\n{signal}: what was done is saved; to resume: {guard.again}", file=sys.stderr)
            leave(128 + signal.signum)
    for run in left_out:
        print(f"not run, it would not have ended in time: {run.name}")
    print(f"\n{', '.join(chosen)}: {out}")
    return 0


def render(what: Sequence[str], preset: Preset, out: Path, seeds: int) -> None:
    """Tables and figures from all reports there are, whichever method or seed was asked for now."""
    from prfl_jax.studies.prfl import figures, tables

    reports = reports_of(preset.columns, out)
    seeds = max([seeds, *(1 + report["seed"] for found in reports.values() for report in found)])
    if "table3" in what:
        for line in tables.table3(out, *clocks(preset.table3_windows, seeds), preset.mark):
            print(line)
    if "fig8" in what:
        figures.fig8(out, preset)
    if set(what) <= {"table3", "fig8"}:
        return
    if not reports:
        print(f"{out}: there is no report yet, so no table and no figure of accuracy")
        return
    if "table4" in what:
        tables.table4(out, preset, reports, seeds)
    if "table5" in what:
        tables.table5(out, preset, reports, seeds)
    if "table4" in what or "fig10" in what:
        tables.bytes_table(out, preset, reports)
    if "fig9" in what:
        figures.fig9(out, preset, reports)
    if "fig10" in what:
        figures.fig10(out, preset, reports)


def clocks(windows: int, seeds: int) -> tuple[dict[str, list[dict[str, Any]]], float]:
    """Table III's two rows by the clock alone, from `configs/table3_*.py`, by seed; and their window, s."""
    from prfl_jax.config.cli import load_config
    from prfl_jax.runtime.clock_only import run_clock

    files = {"fedasyn": "table3_fedasyn.py", "prfl_norecover": "table3_norecover.py"}
    rows = {
        method: [run_clock(load_config(ROOT / "configs" / file, {"seed": seed}), windows) for seed in range(seeds)]
        for method, file in files.items()
    }
    (dt_s,) = {load_config(ROOT / "configs" / file).window.dt_s for file in files.values()}
    return rows, dt_s

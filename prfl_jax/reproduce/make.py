"""What `scripts/reproduce.py` does: the runs that are missing, then tables and figures from all there are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prfl_jax.errors import UserError
from prfl_jax.interrupt import Interrupted, InterruptGuard, leave
from prfl_jax.reproduce import paper, presets
from prfl_jax.reproduce.presets import Column, Preset
from prfl_jax.reproduce.runs import Runner, check_out, load, wanted

WHAT = ("table3", "table4", "table5", "fig8", "fig9", "fig10")
ROOT = Path(__file__).resolve().parent.parent.parent


def preset_named(name: str) -> Preset:
    """`full` (with FEMNIST where it is prepared), `cpu` or `smoke`.

    Raises:
      UserError: another name.
    """
    if name == "full":
        from prfl_jax.config import default_config
        from prfl_jax.data.sources import data_dir

        return presets.full((data_dir(default_config().data) / "femnist").is_dir())
    made: dict[str, Callable[[], Preset]] = {"cpu": presets.cpu, "smoke": presets.smoke}
    if name not in made:
        raise UserError(f"--preset={name}: allowed is one of full, {', '.join(made)}")
    return made[name]()


def methods_for(what: Sequence[str], only: Sequence[str]) -> Callable[[Column], Sequence[str]]:
    """Which methods of a column the tables and figures need.

    Raises:
      UserError: `only` names a method that no table has.
    """
    known = (*paper.MAIN, *paper.ABLATIONS, *paper.EXTRAS)
    for name in only:
        if name not in known:
            raise UserError(f"--only={name}: allowed are {', '.join(known)}")
    needed: set[str] = set()
    if {"table4", "table5", "fig9"} & set(what):
        needed |= set(paper.MAIN)
    if "fig10" in what:
        needed |= {"prfl", *paper.ABLATIONS}
    if set(what) == set(WHAT):
        needed |= set(paper.EXTRAS)
    return lambda column: [m for m in column.methods if m in needed and (not only or m in only)]


def reproduce(
    what: str,
    preset_name: str,
    seeds: int,
    out: str | None,
    only: Sequence[str],
    budget_s: float | None,
    work: str | None,
    settings: Sequence[str] = (),
    changes: Sequence[str] = (),
) -> int:
    """Makes tables and figures, running what is missing first; returns the exit code.

    Raises:
      UserError: a flag's value, a data set that is not there, a report that cannot be read.
    """
    if what != "all" and what not in WHAT:
        raise UserError(f"--what={what}: allowed is one of {', '.join(WHAT)}, all")
    if seeds < 1:
        raise UserError(f"--seeds={seeds}: allowed is a whole number of at least 1")
    if budget_s is not None and not budget_s > 0:
        raise UserError(f"--budget_s={budget_s:g}: allowed is a number above 0")
    preset = preset_named(preset_name)
    if settings:
        preset = preset.only(settings)
    if (settings or changes) and not out and what != "table3":
        raise UserError("--settings and --change: allowed with --out=DIR, so that the preset's own tables stay")
    preset = preset.changed(changes) if changes else preset
    results = ROOT / "results"
    default = Path("runs/smoke") if preset.name == "smoke" else results / preset.name
    folder = Path(out) if out else default
    check_out(folder, preset.name, results)
    chosen = list(WHAT) if what == "all" else [what]
    methods = methods_for(chosen, only)
    runs = wanted(preset.columns, methods, seeds)
    with InterruptGuard(" ".join(sys.argv)) as guard:
        left_out = []
        try:
            runner = Runner(folder, Path(work or f"runs/reproduce-{preset.name}"), budget_s, guard)
            left_out = runner.run(runs)
        except Interrupted as signal:
            print(f"\n{signal}: what was done is saved; the same command goes on", file=sys.stderr)
            leave(128 + signal.signum)
    render(chosen, preset, folder, seeds)
    for run in left_out:
        print(f"not run, it would not have ended in time: {run.name}")
    print(f"\n{', '.join(chosen)}: {folder}")
    return 0


def render(what: Sequence[str], preset: Preset, out: Path, seeds: int) -> None:
    """Tables and figures from the reports there are, of all methods and at most so many seeds."""
    from prfl_jax.reproduce import figures, tables

    reports: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in wanted(preset.columns, lambda column: column.methods, seeds):
        report = load(run, out)
        if report is not None:
            reports.setdefault((run.column.key, run.method), []).append(report)
    if "table3" in what:
        for line in tables.table3(out, clocks(preset.table3_windows, seeds), preset.mark):
            print(line)
    if "table4" in what:
        tables.table4(out, preset, reports)
    if "table5" in what:
        tables.table5(out, preset, reports)
    if "table4" in what or "fig10" in what:
        tables.bytes_table(out, preset, reports)
    if "fig8" in what:
        figures.fig8(out, preset)
    if "fig9" in what:
        figures.fig9(out, preset, reports)
    if "fig10" in what:
        figures.fig10(out, preset, reports)


def clocks(windows: int, seeds: int) -> dict[str, list[dict[str, Any]]]:
    """Table III's two rows by the clock alone, from `configs/table3_*.py`."""
    from prfl_jax.cli import load_config
    from prfl_jax.transport.alone import run_clock

    files = {"fedasyn": "table3_fedasyn.py", "prfl_norecover": "table3_norecover.py"}
    return {
        method: [run_clock(load_config(ROOT / "configs" / file, {"seed": seed}), windows) for seed in range(seeds)]
        for method, file in files.items()
    }

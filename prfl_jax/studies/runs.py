"""Runs the missing runs of a study, and finds those that are done; several processes share the work."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prfl_jax.config.canonical import config_hash, same_run, to_dict
from prfl_jax.config.validate import validate
from prfl_jax.report.names import duration_text, strategy_name
from prfl_jax.report.schema import read_report, write_report
from prfl_jax.studies.columns import Column
from prfl_jax.studies.study import Keep, keep_nothing
from prfl_jax.system.errors import InUse, UserError
from prfl_jax.system.files import check_folder
from prfl_jax.system.signals import InterruptGuard

CAREFUL = 0.5  # of the speed that `--dry_run` assumes, before anything was measured
OVERHEAD_S = 15.0  # starting, compiling, drawing
_TAIL = 100_000  # bytes at the end of a metrics file, which hold its last window

# What tables and figures take from a report.
_NEEDED: dict[str, type | tuple[type, ...]] = {
    "config": dict,
    "seed": int,
    "final": dict,
    "ended": dict,
    "metric": dict,
    "curves": dict,
    "clients": list,
    "device": dict,
    "host": dict,
    "simulated_s": (int, float),
    "bytes_down": int,
    "client_updates": int,
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One method, one seed, one column."""

    column: Column
    method: str
    seed: int

    @property
    def name(self) -> str:
        """Its report's path under `runs/`, without the ending."""
        return f"{self.column.key}/{self.method}_seed{self.seed}"

    def config(self) -> Any:
        """What is run."""
        return self.column.config(self.method, self.seed)

    def file(self, out: Path) -> Path:
        """Its report."""
        return out / "runs" / f"{self.name}.json"

    def workdir(self, work: Path) -> Path:
        """The folder in which an interrupted run is resumed."""
        return work / f"{self.name}-{config_hash(self.config())[:12]}"


def load(run: Run, out: Path) -> dict[str, Any] | None:
    """The report of a run that is done: there is one, of the same config (see `same_run`).

    Raises:
      UserError: the file is not a report.
    """
    file = run.file(out)
    if not file.exists():
        return None
    report = read_report(file)
    named = report.get("metric")
    times = f"time_to_{named.get('name')}" if isinstance(named, Mapping) else "metric"
    for key, kind in {**_NEEDED, times: dict}.items():
        if not isinstance(report.get(key), kind):
            raise UserError(f"{file}: a report without {key!r}, or of another version; take it away to run it again")
    return report if same_run(report["config"], run.config()) else None


def wanted(columns: Sequence[Column], methods: Callable[[Column], Sequence[str]], seeds: int) -> list[Run]:
    """All runs, the first seed of everything first."""
    return [Run(column, method, seed) for seed in range(seeds) for column in columns for method in methods(column)]


def reports_of(columns: Sequence[Column], out: Path) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Every report there is of these columns, of any seed: (column, method) -> reports by seed.

    Raises:
      UserError: a file is not a report.
    """
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for column in columns:
        for method in column.methods:
            files = (out / "runs" / column.key).glob(f"{method}_seed*.json")
            seeds = sorted(int(text) for file in files if (text := file.stem.removeprefix(f"{method}_seed")).isdigit())
            reports = [load(Run(column, method, seed), out) for seed in seeds]
            if kept := [report for report in reports if report is not None]:
                found[column.key, method] = kept
    return found


class Runner:
    """Runs what is missing, one after another.

    Args:
      out: folder of the reports.
      work: folder of the workdirs; an interrupted run is resumed there.
      budget_s: no run is started that would not end within so many s from now; None: no limit.
      guard: hears of signals.
      keep: is given a finished run's folder before it is removed, see `Study.keep`.
    """

    def __init__(
        self, out: Path, work: Path, budget_s: float | None, guard: InterruptGuard, keep: Keep = keep_nothing
    ) -> None:
        self._out, self._work, self._guard, self._keep = out, work, guard, keep
        self._ends = None if budget_s is None else time.monotonic() + budget_s
        self._speeds: list[float] = []  # FLOP/s of the runs made here

    def expected_s(self, flop: float) -> float:
        """Host seconds of a run with so many FLOP, from the slowest of the last runs."""
        return OVERHEAD_S + flop / (min(self._speeds[-3:]) if self._speeds else assumed_flop_s())

    def run(self, runs: Sequence[Run]) -> list[Run]:
        """Runs those that are not done; returns those that were left out for lack of time.

        Several processes may be given the same runs and folders: each passes over what another has under way.

        Raises:
          Interrupted: a signal came; the same command resumes the run under way.
          UserError: a data set or a report cannot be read.
        """
        from prfl_jax.runtime.dry_run import estimate

        todo = [run for run in runs if load(run, self._out) is None]
        if not todo:
            return []
        estimates: dict[str, float] = {}
        for run in todo:  # all configs and data sets are looked at before anything is run
            key = f"{run.column.key}/{run.method}"
            if key not in estimates:
                validate(run.config())
                estimates[key] = estimate(run.config()).flop
        flop = {run: estimates[f"{run.column.key}/{run.method}"] for run in todo}
        done, left_out = len(runs) - len(todo), []
        for place, run in enumerate(todo):
            left = 1.0 - share_done(run, self._work)
            expected = self.expected_s(left * flop[run])
            if self._ends is not None and time.monotonic() + expected > self._ends:
                left_out.append(run)
                continue
            rest = expected + sum(self.expected_s(flop[later]) for later in todo[place + 1 :])
            print(
                f"\nrun {done + place + 1} of {len(runs)}: {run.column.title}, {strategy_name(run.method)}, "
                f"seed {run.seed} (about {duration_text(expected)}; all that is missing {duration_text(rest)})",
                file=sys.stderr,
                flush=True,
            )
            try:
                report = self._one(run)
            except InUse:
                print("another process has it under way", file=sys.stderr, flush=True)
                continue
            if report is not None:
                host_s = report["host"]["total_s"]  # of all its pieces, where it was interrupted
                self._speeds.append(flop[run] / max(host_s - OVERHEAD_S, 1.0))
        return left_out

    def _one(self, run: Run) -> dict[str, Any] | None:
        """Its report; None where another process has ended it meanwhile."""
        import jax

        from prfl_jax.runtime.experiment import Experiment
        from prfl_jax.runtime.workdir import Workdir

        if load(run, self._out) is not None:
            return None
        config = run.config()
        folder, file = run.workdir(self._work), run.file(self._out)
        with self._guard.nothing_to_save():
            experiment = Experiment(config)
        with Workdir(folder, to_dict(config), config_hash(config)) as locked:
            if load(run, self._out) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                return None
            report = experiment.run(locked, guard=self._guard).report
            _set_aside(file)
            self._keep(run.seed, folder, file)  # first: a run with a report is done
            write_report(file, report)
            shutil.rmtree(
                folder, ignore_errors=True
            )  # while it is locked, so that no other process begins there in between
        # programs of one run are of no use to the next; a process has room for some hundred of them
        jax.clear_caches()
        gc.collect()
        return report


def _set_aside(file: Path) -> None:
    """A report of another config stays, under another name."""
    k = 0
    while file.exists():
        aside = file.with_name(f"{file.name}.other_config_{k}")
        if not aside.exists():
            file.rename(aside)
            print(f"{file.name} was of another config; it is now {aside.name}", file=sys.stderr)
        k += 1


def assumed_flop_s() -> float:
    """FLOP/s before any run was made here."""
    from prfl_jax.runtime.dry_run import ASSUMED_FLOP_S
    from prfl_jax.system import accelerator

    return CAREFUL * ASSUMED_FLOP_S.get(accelerator.backend(), 1e12)


def share_done(run: Run, work: Path) -> float:
    """Share of its horizon that an interrupted run has behind it; 0 where there is none."""
    horizon, file = run.config().horizon_s, run.workdir(work) / "metrics.jsonl"
    try:
        with open(file, "rb") as lines:
            lines.seek(max(0, os.stat(file).st_size - _TAIL))
            whole = [line for line in lines.readlines() if line.startswith(b"{") and line.endswith(b"}\n")]
        windows = [json.loads(line) for line in whole]
    except (OSError, ValueError):
        return 0.0
    ends = [record["end_s"] for record in windows if record.get("kind") == "window" and "end_s" in record]
    return min(1.0, ends[-1] / horizon) if ends and horizon else 0.0


def check_out(out: Path, preset: str, results: Path) -> None:
    """Whether the folder is one to write to.

    Raises:
      UserError: the smoke preset would write among the results, or the folder cannot be written to.
    """
    inside = out.resolve().is_relative_to(results.resolve())
    if preset == "smoke" and inside:
        raise UserError(f"--out={out}: allowed with --preset=smoke is a folder outside results/, such as runs/smoke")
    check_folder("--out", out)


def missing(
    columns: Sequence[Column],
    reports: Mapping[tuple[str, str], Sequence[Any]],
    seeds: int,
    name: Callable[[str], str] = strategy_name,
) -> list[str]:
    """Methods of which there are fewer than so many seeds, by their `name`, in words, a line a column."""
    lines = []
    for column in columns:
        counts = {method: len(reports.get((column.key, method), ())) for method in column.methods}
        few = [name(m) + (f" ({n} of {seeds} seeds)" if n else "") for m, n in counts.items() if n < seeds]
        if not any(counts.values()):
            few = ["nothing of it"]
        if few:
            lines.append(f"not run yet: {column.title}: {', '.join(few)}")
    return lines

"""The runs behind the tables: which are done, and running what is missing."""

from __future__ import annotations

import dataclasses
import gc
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prfl_jax.errors import InUse, UserError
from prfl_jax.interrupt import InterruptGuard
from prfl_jax.report.names import duration_text, strategy_name
from prfl_jax.report.schema import read_report, write_report
from prfl_jax.reproduce.presets import Column
from prfl_jax.validate import config_hash, same_run, validate

ASSUMED_FLOP_S = 5e10  # before anything was measured: a careful guess for two CPU cores
OVERHEAD_S = 15.0  # starting, compiling, drawing


@dataclasses.dataclass(frozen=True)
class Run:
    """One method, one seed, one column."""

    column: Column
    method: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.column.key}/{self.method}_seed{self.seed}"

    def config(self) -> Any:
        return self.column.config(self.method, self.seed)

    def file(self, out: Path) -> Path:
        """Its report."""
        return out / "runs" / f"{self.name}.json"


def load(run: Run, out: Path) -> dict[str, Any] | None:
    """The report of a run that is done: there is one, of the same config (see `same_run`).

    Raises:
      UserError: the file is not a report.
    """
    file = run.file(out)
    if not file.exists():
        return None
    report = read_report(file)
    return report if same_run(report["config"], run.config()) else None


def wanted(columns: Sequence[Column], methods: Callable[[Column], Sequence[str]], seeds: int) -> list[Run]:
    """All runs, the first seed of everything first."""
    return [
        Run(column, method, seed) for seed in range(seeds) for column in columns for method in methods(column)
    ]


class Runner:
    """Runs what is missing, one after another.

    Args:
      out: folder of the reports.
      work: folder of the workdirs; a run that was interrupted goes on there.
      budget_s: no run is started that would not end within so many s from now; None: no limit.
      guard: hears of signals.
    """

    def __init__(self, out: Path, work: Path, budget_s: float | None, guard: InterruptGuard) -> None:
        self._out, self._work, self._guard = out, work, guard
        self._ends = None if budget_s is None else time.monotonic() + budget_s
        self._speeds: list[float] = []  # FLOP/s of the runs made here

    def expected_s(self, flop: float) -> float:
        """Host seconds of a run with so many FLOP, from the slowest of the last runs."""
        return OVERHEAD_S + flop / (min(self._speeds[-3:]) if self._speeds else ASSUMED_FLOP_S)

    def run(self, runs: Sequence[Run]) -> list[Run]:
        """Runs those that are not done; returns those that were left out for lack of time.

        Several processes may be given the same runs and folders: each passes over what another has under way.

        Raises:
          Interrupted: a signal came; the run under way goes on when the same command is given again.
          UserError: a data set or a report cannot be read.
        """
        from prfl_jax.dry_run import estimate

        todo = [run for run in runs if load(run, self._out) is None]
        if not todo:
            return []
        flop: dict[str, float] = {}
        for run in todo:  # all configs and data sets are looked at before anything is run
            key = f"{run.column.key}/{run.method}"
            if key not in flop:
                validate(run.config())
                flop[key] = estimate(run.config()).flop
        done, left_out = len(runs) - len(todo), []
        for place, run in enumerate(todo):
            own = flop[f"{run.column.key}/{run.method}"]
            expected = self.expected_s(own)
            if self._ends is not None and time.monotonic() + expected > self._ends:
                left_out.append(run)
                continue
            if place and load(run, self._out) is not None:  # by another process, meanwhile
                continue
            rest = sum(self.expected_s(flop[f"{r.column.key}/{r.method}"]) for r in todo[place:])
            print(
                f"\nrun {done + place + 1} of {len(runs)}: {run.column.title}, {strategy_name(run.method)}, "
                f"seed {run.seed} (about {duration_text(expected)}; all that is missing {duration_text(rest)})",
                file=sys.stderr,
                flush=True,
            )
            begin = time.monotonic()
            try:
                self._one(run)
            except InUse:
                print("another process has it under way", file=sys.stderr, flush=True)
                continue
            self._speeds.append(own / max(time.monotonic() - begin - OVERHEAD_S, 1.0))
        return left_out

    def _one(self, run: Run) -> None:
        import jax

        from prfl_jax.experiment import Experiment

        config = run.config()
        folder = self._work / f"{run.name}-{config_hash(config)[:12]}"
        report = Experiment(config).run(folder, guard=self._guard).report
        file = run.file(self._out)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_report(file, report)
        shutil.rmtree(folder, ignore_errors=True)
        # programs of one run are of no use to the next; a process has room for some hundred of them
        jax.clear_caches()
        gc.collect()


def check_out(out: Path, preset: str, results: Path) -> None:
    """Whether the folder is one to write to.

    Raises:
      UserError: the smoke preset would write among the results, or the folder cannot be written to.
    """
    inside = out.resolve().is_relative_to(results.resolve())
    if preset == "smoke" and inside:
        raise UserError(f"--out={out}: allowed with --preset=smoke is a folder outside results/, such as runs/smoke")
    try:
        (out / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out={out}: {error.strerror}; allowed is a folder that can be written to") from None

"""Times functions in alternating order, and makes the rows of a benchmark's table from the times."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

Task = Callable[[], float]  # runs once, returns s


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a suite.

    Attributes:
      kernel: what was timed.
      runs: s of each run, in their order; empty where it could not be run.
      compile_s: s of the first call less a later one: tracing, compiling, new memory.
      reference: what it is compared with, in words.
      reference_runs: s of the reference's runs, taken in turn with `runs`.
      bound: what `bound_on` ("ratio" or "median") may be at most; None: no bound.
      judged: False where the size is not the one the bound is about.
      note: conditions of the measurement.
      missing: why there is no reference, where there should be one.
      beside: s of other tasks, by name, taken in turn with `runs`.
    """

    kernel: str
    runs: Sequence[float]
    compile_s: float | None = None
    reference: str | None = None
    reference_runs: Sequence[float] = ()
    bound: float | None = None
    bound_on: str = "ratio"
    judged: bool = True
    note: str = ""
    missing: str = ""
    beside: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)

    @property
    def median(self) -> float | None:
        return statistics.median(self.runs) if self.runs else None

    @property
    def ratio(self) -> float | None:
        """Median over the reference's median."""
        if not self.runs or not self.reference_runs:
            return None
        return statistics.median(self.runs) / statistics.median(self.reference_runs)

    @property
    def ok(self) -> bool | None:
        """Whether the bound is kept; None where there is none, or nothing to judge."""
        value = self.ratio if self.bound_on == "ratio" else self.median
        if self.bound is None or value is None or not self.judged:
            return None
        return value <= self.bound

    def to_json(self) -> dict[str, Any]:
        reference = None
        if self.reference is not None:
            reference = {"name": self.reference, **spread(self.reference_runs)}
        return {
            "kernel": self.kernel,
            "unit": "s",
            **spread(self.runs),
            "compile_s": self.compile_s,
            "reference": reference,
            "ratio": self.ratio,
            "bound": self.bound,
            "bound_on": self.bound_on if self.bound is not None else None,
            "ok": self.ok,
            "note": self.note,
            "missing": self.missing or None,
        }


def against(runs: Sequence[float], base: Sequence[float]) -> dict[str, Any]:
    """Runs and their ratios to those of another in the same turns, for a row of a report."""
    ratios = [own / theirs for own, theirs in zip(runs, base, strict=True)]
    return {
        "unit": "s", "median": statistics.median(runs), "runs": list(runs),
        "ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios),
    }  # fmt: skip


def spread(runs: Sequence[float]) -> dict[str, Any]:
    """Median, least, largest and all of some runs, as a report has them; None where there are none."""
    if not runs:
        return {"median": None, "min": None, "max": None, "runs": []}
    return {"median": statistics.median(runs), "min": min(runs), "max": max(runs), "runs": list(runs)}


class Timed:
    """A call as a task: `calls` calls in a row, s per call, waiting for the device only at the end.

    The first call, compiling included, is made here.

    Attributes:
      first_s: s of that first call.
      calls: so many that a run lasts `least_s`, at most 50.
    """

    def __init__(self, call: Callable[[], Any], least_s: float = 0.1) -> None:
        self._call, self.calls = call, 1
        self.first_s = self()
        self.calls = min(50, max(1, math.ceil(least_s / max(self(), 1e-6))))

    def __call__(self) -> float:
        start = time.perf_counter()
        for _ in range(self.calls):
            out = self._call()
        jax.block_until_ready(out)
        return (time.perf_counter() - start) / self.calls

    def compile_s(self, runs: Sequence[float]) -> float:
        return max(0.0, self.first_s - statistics.median(runs))


def alternate(tasks: Mapping[str, Task], repeats: int, pause_s: float) -> dict[str, list[float]]:
    """Runs all tasks in turn, `repeats` times after one turn that does not count.

    Every second turn goes backwards, so that no task always follows the same one, and
    a pause before each run lets the threads of the one before fall asleep.
    """
    runs: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(repeats + 1):
        for name in list(tasks) if turn % 2 == 0 else reversed(list(tasks)):
            time.sleep(pause_s)
            seconds = tasks[name]()
            if turn > 0:
                runs[name].append(seconds)
    return runs


def table(rows: Sequence[Row]) -> str:
    """The rows for people; times in ms."""

    def milliseconds(value: float | None) -> str:
        return "-" if value is None else f"{1e3 * value:.2f}" if value < 0.1 else f"{1e3 * value:.0f}"

    head = ("kernel", "median ms", "min", "max", "compile s", "reference ms", "ratio", "bound", "")
    lines: list[tuple[str, ...]] = [head]
    for row in rows:
        reference = statistics.median(row.reference_runs) if row.reference_runs else None
        unit = " s" if row.bound_on == "median" else ""
        verdict = "" if row.bound is None else {True: "ok", False: "MISSED", None: "not judged"}[row.ok]
        lines.append(
            (
                row.kernel,
                milliseconds(row.median),
                milliseconds(min(row.runs, default=None)),
                milliseconds(max(row.runs, default=None)),
                "-" if row.compile_s is None else f"{row.compile_s:.1f}",
                milliseconds(reference),
                "-" if row.ratio is None else f"{row.ratio:.2f}",
                "-" if row.bound is None else f"<= {row.bound:g}{unit}",
                verdict,
            )
        )
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    text = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
    missing = list(dict.fromkeys(f"no comparison: {row.missing}" for row in rows if row.missing))
    return "\n".join([line.rstrip() for line in text] + missing)

"""Times functions in alternating order, and makes the rows of a benchmark's report and table."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

Task = Callable[[], float]  # runs once and returns its time in s


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a suite.

    Attributes:
      kernel: name of the function that was timed.
      runs: s of each run, in order; empty if it could not run.
      compile_s: s of the first call minus a later one: tracing, compiling, new memory.
      reference: name of the function that it is compared with.
      reference_runs: s of the reference's runs, which take turns with `runs`.
      bound: largest allowed value of `bound_on` ("ratio" or "median", in s); None: no bound.
      judged: False if the bound does not apply to this size.
      note: conditions of the measurement.
      missing: why the reference is missing, if there should be one.
      beside: s of other tasks, by name, which take turns with `runs`.
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
        """The median divided by the reference's median; None without a reference."""
        if not self.runs or not self.reference_runs:
            return None
        return statistics.median(self.runs) / statistics.median(self.reference_runs)

    @property
    def ok(self) -> bool | None:
        """Whether the bound is met; None if there is no bound or nothing to judge."""
        value = self.ratio if self.bound_on == "ratio" else self.median
        if self.bound is None or value is None or not self.judged:
            return None
        return value <= self.bound

    def to_json(self) -> dict[str, Any]:
        """Returns the row as the JSON file has it."""
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
    """Returns the s of the runs and their ratios to those of `base` in the same turns, as keys of a row."""
    ratios = [own / theirs for own, theirs in zip(runs, base, strict=True)]
    return {
        "unit": "s", "median": statistics.median(runs), "runs": list(runs),
        "ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios),
    }  # fmt: skip


def spread(runs: Sequence[float]) -> dict[str, Any]:
    """Returns median, smallest, largest and all of the runs, as keys of a row; None if there are no runs."""
    if not runs:
        return {"median": None, "min": None, "max": None, "runs": []}
    return {"median": statistics.median(runs), "min": min(runs), "max": max(runs), "runs": list(runs)}


class Timed:
    """A task that makes `calls` calls, waits for the device at the end, and returns the s per call.

    The first call, which compiles, is made by the constructor.

    Attributes:
      first_s: s of the first call.
      calls: as many as make a run last `least_s`, at most 50.
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
        """Returns the s of the first call minus the median of later ones."""
        return max(0.0, self.first_s - statistics.median(runs))


def alternate(tasks: Mapping[str, Task], repeats: int, pause_s: float) -> dict[str, list[float]]:
    """Runs all tasks in turn, `repeats` times after one turn that is discarded; returns the s of each run by task.

    Every second turn is in reverse order, so that no task always follows the same one. A pause of `pause_s` before each
    run lets the threads of the previous task fall asleep.
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
    """Returns the rows as a plain text table; times in ms."""

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

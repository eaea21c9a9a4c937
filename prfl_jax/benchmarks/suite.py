"""Runs one suite of `scripts/benchmark.py`, prints its table, writes its JSON file and history."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prfl_jax.system import provenance
from prfl_jax.system.errors import UserError
from prfl_jax.system.files import output_file, user_path, write_text

SCHEMA_VERSION = 1
SIZES = ("full", "small")
DATA = ("random", "real")
BUSY = 0.3  # load for each core above which a warning is printed


@dataclasses.dataclass(frozen=True)
class Request:
    """The flags of scripts/benchmark.py.

    Attributes:
      out: the JSON file; all suites but `kernels` also write their table next to it, as `.md`.
      workloads, peers: names, of the suite `peers`; if empty, all of them.
      envs: folder of the peers' environments.
      data: `random` or `real` images, of the suite `peers`.
    """

    suite: str | None
    out: str | None
    repeats: int = 7
    size: str = "full"
    workloads: Sequence[str] = ()
    peers: Sequence[str] = ()
    envs: str | None = None
    data: str = "random"


def check(request: Request) -> Path:
    """Checks the flags; returns the JSON file to write.

    Raises:
      UserError: a flag has a value that is not allowed.
    """
    if request.suite not in _MEASURED:
        raise UserError(f"--suite={request.suite}: allowed is {', '.join(_MEASURED)}")
    if request.size not in SIZES:
        raise UserError(f"--size={request.size}: allowed are {', '.join(SIZES)}")
    if request.data not in DATA:
        raise UserError(f"--data={request.data}: allowed are {', '.join(DATA)}")
    if request.repeats < 1:
        raise UserError(f"--repeats={request.repeats}: allowed is a whole number of at least 1")
    if request.suite == "peers":
        from prfl_jax.benchmarks.peers import FOLDER, PEERS, WORKLOADS

        for flag, names, known in (("workloads", request.workloads, WORKLOADS), ("peers", request.peers, PEERS)):
            for name in names:
                if name not in known:
                    raise UserError(f"--{flag}={name}: allowed are {', '.join(known)}")
        if not FOLDER.is_dir():
            raise UserError(f"--suite=peers: allowed only in a clone of the repository, with the workers in {FOLDER}")
    return output_file("--out", request.out, f"{request.suite}.json")


def run_suite(request: Request) -> int:
    """Runs a suite, writes `out`, prints the table; returns 0, even if a bound is missed.

    Raises:
      UserError: as `check`; or a file cannot be written.
    """
    path, load = check(request), os.getloadavg()
    about, rows, text = _MEASURED[request.suite or ""](request, load)
    report = {
        "schema_version": SCHEMA_VERSION,
        "suite": request.suite,
        "size": request.size,
        "repeats": request.repeats,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **about,
        "rows": rows,
    }
    write_text(path, json.dumps(report, indent=1, allow_nan=False) + "\n")
    if request.suite != "kernels":
        write_text(path.with_suffix(".md"), text + "\n")
    print(f"\n{text}\n{path}")
    if request.size == "full":
        add_to_history(path.with_name(f"{path.stem}_history.jsonl"), report)
    if load[0] > BUSY * provenance.cores():
        print(f"the machine was busy before the suite began (load {load[0]:.1f}): measure again when it is idle")
    return 0


def add_to_history(path: Path, report: dict[str, Any]) -> None:
    """Appends a line about this run to the history of its JSON file.

    Raises:
      UserError: the history cannot be written.
    """
    hardware = report["hardware"]
    line = {
        "date": report["date"],
        **{key: hardware[key] for key in ("commit", "cpu", "threads", "load_average_before")},
        "versions": {key: hardware["versions"].get(key) for key in ("jax", "jaxlib", "torch")},
        "rows": [_brief(row) for row in report["rows"]],
    }
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False, separators=(",", ":")) + "\n")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; the report itself is written") from None
    print(f"added to {path}")


def _brief(row: dict[str, Any]) -> dict[str, Any]:
    """Returns the short values of a row, for the history: names, medians, ratios."""
    return {key: value for key, value in row.items() if isinstance(value, str | int | float) and key not in _LONG}


_LONG = ("note", "judged", "bound_on")
Measured = tuple[dict[str, Any], list[dict[str, Any]], str]  # about the suite, its rows, its table


def _kernels(request: Request, load: tuple[float, float, float]) -> Measured:
    # imported here, so that a wrong flag is refused before JAX is loaded
    from prfl_jax.benchmarks.kernels import METHOD, KernelSuite
    from prfl_jax.benchmarks.timing import table

    kernels = KernelSuite(request.size, request.repeats)
    rows = []
    for row in kernels.rows():
        print(f"measured {row.kernel}", flush=True)
        rows.append(row)
    about = {"hardware": hardware(load), "torch": kernels.torch, "method": METHOD}
    return about, [row.to_json() for row in rows], table(rows)


def _peers(request: Request, load: tuple[float, float, float]) -> Measured:
    from prfl_jax.benchmarks.peers import METHOD, PEERS, WORKLOADS, PeerSuite, markdown

    envs = user_path("--envs", request.envs or "~/.cache/prfl_jax/peers")
    workloads, peers = request.workloads or tuple(WORKLOADS), request.peers or tuple(PEERS)
    suite = PeerSuite(workloads, peers, envs, request.data == "real", request.repeats, request.size == "small")
    rows = list(suite.rows())
    machine = hardware(load)
    about = {"hardware": machine, "data": request.data, "method": METHOD}
    named = f"{machine['cpu']}, {machine['threads']} cores, {datetime.date.today()}, {request.data} images"
    return about, rows, markdown(rows, f"{named}, medians of {request.repeats} turns.")


def _roofline(request: Request, load: tuple[float, float, float]) -> Measured:
    from prfl_jax.benchmarks.roofline import METHOD, RooflineSuite, table

    suite = RooflineSuite(request.size, request.repeats)
    rows = list(suite.rows())
    machine = hardware(load)
    limits = dataclasses.asdict(suite.limits)
    text = f"{machine['cpu']}, {machine['threads']} cores, {datetime.date.today()}: {table(rows, suite.limits)}"
    return {"hardware": machine, "limits": limits, "method": METHOD}, rows, text


def _devices(request: Request, load: tuple[float, float, float]) -> Measured:
    from prfl_jax.startup import a_device_per_core

    a_device_per_core()
    from prfl_jax.benchmarks import balance

    return _simple(balance, request, load)


def _axes(request: Request, load: tuple[float, float, float]) -> Measured:
    from prfl_jax.benchmarks import axes

    return _simple(axes, request, load)


def _widths(request: Request, load: tuple[float, float, float]) -> Measured:
    from prfl_jax.benchmarks import widths

    return _simple(widths, request, load)


def _intervals(request: Request, load: tuple[float, float, float]) -> Measured:
    from prfl_jax.benchmarks import intervals

    return _simple(intervals, request, load)


def _simple(suite: Any, request: Request, load: tuple[float, float, float]) -> Measured:
    """Runs a suite that is a module with `METHOD`, `rows` and `table`."""
    found = list(suite.rows(request.size, request.repeats))
    machine = hardware(load)
    named = machine["device"]["kind"] if machine["device"]["backend"] != "cpu" else machine["cpu"]
    text = f"{named}, {machine['threads']} cores, {datetime.date.today()}:\n\n{suite.table(found)}"
    return {"hardware": machine, "method": suite.METHOD}, found, text


_MEASURED: dict[str, Callable[[Request, tuple[float, float, float]], Measured]] = {
    "kernels": _kernels, "peers": _peers, "roofline": _roofline, "devices": _devices, "axes": _axes,
    "widths": _widths, "intervals": _intervals,
}  # fmt: skip


def hardware(load: tuple[float, float, float]) -> dict[str, Any]:
    """Returns the machine, versions and flags of its software, and its load before the suite began."""
    from prfl_jax.system import environment

    versions = environment.versions()
    try:
        versions["torch"] = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        pass
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": provenance.cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "device": environment.device(),
        "versions": versions,
        "commit": environment.commit(),
        **environment.flags(),
        "environment": {key: os.environ[key] for key in ("OMP_NUM_THREADS", "MALLOC_ARENA_MAX") if key in os.environ},
        "load_average_before": list(load),
    }


def cpu_model() -> str:
    """Returns the name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

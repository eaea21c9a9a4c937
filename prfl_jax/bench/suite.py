"""What `scripts/benchmark.py` does: a suite, its table, its JSON file."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

from prfl_jax.errors import UserError
from prfl_jax.files import output_file, write_text

SCHEMA_VERSION = 1
SUITES = ("kernels",)
SIZES = ("full", "small")
BUSY = 0.3  # load a core from which a warning is printed
METHOD = (
    "Kernels that are compared run in turn, in an order that goes back and forth, after one turn that does not count; "
    "a pause precedes each run of local training. PyTorch runs in a process of its own that waits on a pipe while "
    "others run, with as many threads as there are cores; its time is taken inside that process. Numbers of this "
    "process end when the device is done. compile_s is tracing and compiling (or the first call less a later one)."
)


def check(suite: str | None, out: str | None, repeats: int, size: str) -> Path:
    """The file to write.

    Raises:
      UserError: a flag has a value that is not allowed.
    """
    if suite not in SUITES:
        raise UserError(f"--suite={suite}: allowed is {', '.join(SUITES)}")
    if size not in SIZES:
        raise UserError(f"--size={size}: allowed are {', '.join(SIZES)}")
    if repeats < 1:
        raise UserError(f"--repeats={repeats}: allowed is a whole number of at least 1")
    return output_file("--out", out, "kernels.json")


def run_suite(suite: str | None, out: str | None, repeats: int, size: str) -> int:
    """Measures, writes `out`, prints the table; returns 0 whatever the numbers are.

    Raises:
      UserError: as `check`.
    """
    path = check(suite, out, repeats, size)
    # after the check: a wrong flag need not wait for JAX
    from prfl_jax.bench.kernels import KernelSuite
    from prfl_jax.bench.timing import table

    load = os.getloadavg()
    kernels = KernelSuite(size, repeats)
    rows = []
    for row in kernels.rows():
        print(f"measured {row.kernel}", flush=True)
        rows.append(row)
    machine = hardware(load)
    report = {
        "schema_version": SCHEMA_VERSION,
        "suite": suite,
        "size": size,
        "repeats": repeats,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": machine,
        "torch": kernels.torch,
        "method": METHOD,
        "rows": [row.to_json() for row in rows],
    }
    write_text(path, json.dumps(report, indent=1, allow_nan=False) + "\n")
    print(f"\n{table(rows)}\n{path}")
    if load[0] > BUSY * machine["threads"]:
        print(f"the machine was busy before (load {load[0]:.1f}): measure again when it is not")
    return 0


def hardware(load: tuple[float, float, float]) -> dict[str, Any]:
    """The machine, what runs on it, and how busy it was before the suite began."""
    from prfl_jax import environment, provenance

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
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

"""The commit, package versions and machine that every report names (no JAX)."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Python's and the packages' versions; `?` for one that is not installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "?"
    return found


def commit() -> str | None:
    """The commit of the clone this package runs from, with `+changes` if it was edited; None outside one."""
    here = Path(__file__).resolve().parents[2]
    try:
        if not (here / ".git").exists():
            return None
        git = ["git", "-C", str(here)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_MODEL = ("model name", "cpu model", "uarch", "Hardware", "cpu")  # in /proc/cpuinfo, by architecture
_PARTS = ("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision")  # of ARM, which has no name


def processor() -> str:
    """The model of this machine's processor; what the system knows of it where it has no name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return _processor_elsewhere()
    found = {name.strip(): value.strip() for name, _, value in reversed([line.partition(":") for line in lines])}
    for name in _MODEL:
        if found.get(name):
            return " ".join(found[name].split())
    parts = [f"{name} {found[name]}" for name in _PARTS if found.get(name)]
    return ", ".join(parts) or _processor_elsewhere()


def _processor_elsewhere() -> str:
    if sys.platform == "darwin":
        try:
            asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
            said = subprocess.run(asked, capture_output=True, text=True, timeout=10).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            said = ""
        if said:
            return said
    return platform.processor() or platform.machine() or "?"


def model_number() -> str | None:
    """Family, model and stepping, where the processor has them: names such as "AMD EPYC" may hide several."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return None
    found = {name.strip(): value.strip() for name, _, value in reversed([line.partition(":") for line in lines])}
    parts = [found.get(name, "") for name in ("cpu family", "model", "stepping")]
    return "/".join(parts) if all(parts) else None


def machine() -> dict[str, Any]:
    """Processor and cores that this process may use."""
    return {
        "machine": platform.machine(),
        "host_cores": cores(),
        "processor": processor(),
        "model_number": model_number(),
    }

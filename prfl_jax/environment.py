"""What a report says about where it was made."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml_collections")


def versions() -> dict[str, str]:
    """Python and the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "?"
    return found


def commit() -> str | None:
    """The commit of the clone this package runs from, with `+changes` if it was edited; None outside one."""
    here = Path(__file__).resolve().parent.parent
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


def device() -> dict[str, Any]:
    """The accelerator and the host."""
    first = jax.devices()[0]
    return {
        "backend": jax.default_backend(),
        "kind": first.device_kind,
        "count": jax.device_count(),
        "processes": jax.process_count(),
        "host_cores": os.cpu_count(),
        "machine": platform.machine(),
    }


def flags() -> dict[str, Any]:
    """Settings outside the config that can change numbers."""
    return {
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "jax_default_matmul_precision": jax.config.values["jax_default_matmul_precision"],
        "jax_enable_x64": jax.config.values["jax_enable_x64"],
    }


def peak_memory_mb() -> float | None:
    """Peak MB of the device where it tells (GPU, TPU), else of this process."""
    stats = jax.devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # bytes there, KiB here

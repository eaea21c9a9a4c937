"""Compiled programs kept between processes, for the scripts: JAX's own cache, in a folder of this kind of machine.

Importing the package sets nothing; who wants the same from Python calls `keep_compiled` before
JAX is imported. Nothing here imports JAX.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from pathlib import Path

MOST_BYTES = 2 * 1024**3  # the programs not used for longest go first
FOLDER = "JAX_COMPILATION_CACHE_DIR"


def keep_compiled() -> Path | None:
    """Tells JAX to keep compiled programs under `~/.cache/prfl_jax` (or `$XDG_CACHE_HOME/prfl_jax`).

    Where JAX_COMPILATION_CACHE_DIR is set, also to nothing, it is left as it is. Programs for
    the CPU are made for this very processor, so each kind has a folder of its own: a home that
    several machines share does no harm.

    Returns:
      The folder; None where the user's setting counts, or none can be written.
    """
    if FOLDER in os.environ:
        return None
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    folder = home / "prfl_jax" / "compiled" / _machine()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    if not os.access(folder, os.W_OK):
        return None
    os.environ[FOLDER] = str(folder)
    os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(MOST_BYTES))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    return folder


def _machine() -> str:
    """Of the processor's model and abilities, and of jaxlib."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor(), platform.machine()]
    kinds = ("vendor_id", "cpu family", "model", "stepping", "flags", "CPU", "Features")
    facts = sorted({line for line in lines if line.startswith(kinds)}) or lines
    return hashlib.sha256("\n".join([importlib.metadata.version("jaxlib"), *facts]).encode()).hexdigest()[:12]

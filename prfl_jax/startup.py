"""Settings that must be made before JAX is imported: compiled-program cache, one device for each CPU core, log level.

Importing the package sets nothing; who wants the same from Python calls `before_jax` before
JAX is imported. Nothing here imports JAX.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import logging
import os
import platform
import sys
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

from prfl_jax.system import compile_cache, console, provenance

__all__ = ["a_device_per_core", "before_jax", "keep_compiled"]

MOST_BYTES = 2 * 1024**3  # the programs not used for longest go first
FOLDER = "JAX_COMPILATION_CACHE_DIR"
_MOST, _LEAST_S = "JAX_COMPILATION_CACHE_MAX_SIZE", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
HOST_DEVICES = "--xla_force_host_platform_device_count"
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def before_jax(processes: int = 1) -> None:
    """All settings, where the user has not set them; `processes` make the run together on one or more machines."""
    keep_compiled()
    orbax_once()
    if processes == 1:
        a_device_per_core()


def a_device_per_core() -> None:
    """Makes JAX count each core of the CPU as a device of its own (`engine.devices` says how many are used)."""
    flags = os.environ.get("XLA_FLAGS", "")
    if HOST_DEVICES not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {HOST_DEVICES}={provenance.cores()}".strip()


def deterministic_operations(environment: MutableMapping[str, str]) -> None:
    """Makes a JAX that starts in this environment compute the same bits each time on a GPU."""
    environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {DETERMINISTIC}".strip()


def orbax_once() -> None:
    """Leaves out what Orbax says of an error besides raising it: logged tracebacks, and those of its event loops."""
    logger = logging.getLogger("absl")
    if _not_orbax not in logger.filters:
        logger.addFilter(_not_orbax)
        sys.unraisablehook = functools.partial(_unless_closed, sys.unraisablehook)


def _not_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


def _unless_closed(before: Callable[[Any], None], unraisable: Any) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
        before(unraisable)


def keep_compiled() -> Path | None:
    """Tells JAX to keep compiled programs under `~/.cache/prfl_jax` (or `$XDG_CACHE_HOME/prfl_jax`).

    Where JAX_COMPILATION_CACHE_DIR is set, also to nothing, it is left as it is. Programs for
    the CPU are made for this very processor, so each kind has a folder of its own: a home that
    several machines share does no harm. What a killed process left damaged there is dropped.

    Returns:
      The folder; None where the user's setting counts, or none can be written, which a line on stderr tells.
    """
    if FOLDER in os.environ:
        return None
    home = Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"))
    if not home.is_absolute():  # of a user without a home; and so the rule for XDG_CACHE_HOME
        return None
    folder = home / "prfl_jax" / "compiled" / _machine()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        compile_cache.mend(folder)
    except OSError as error:
        console.say(compile_cache.cannot_keep(folder, error.strerror or error))
        return None
    compile_cache.tell_once(folder)
    os.environ[FOLDER] = str(folder)
    os.environ.setdefault(_MOST, str(MOST_BYTES))
    os.environ.setdefault(_LEAST_S, "0.2")
    jax = sys.modules.get("jax")
    if jax is not None and jax.config.jax_compilation_cache_dir is None:
        # a plugin that the config names has imported JAX, which reads the environment only then
        for name, kind in ((FOLDER, str), (_MOST, int), (_LEAST_S, float)):
            jax.config.update(name.lower(), kind(os.environ[name]))
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

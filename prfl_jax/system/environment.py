"""Describes the machine and the software in a report: devices, processor, instructions, versions, JAX settings."""

from __future__ import annotations

import functools
import os
import re
import resource
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from prfl_jax.system import accelerator, provenance
from prfl_jax.system.jax_settings import settings

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml_collections")


def versions() -> dict[str, str]:
    """Python and the packages that numbers depend on."""
    return provenance.versions(PACKAGES)


commit = provenance.commit


@functools.cache
def compiled_for() -> list[str]:
    """The abilities of the CPU that XLA makes programs for, as a small program of its own names them.

    They are the processor's, less those that XLA_FLAGS takes away (`--xla_cpu_max_isa`). Empty for an accelerator, and
    where the program does not say.
    """
    if not accelerator.on_cpu():
        return []
    try:
        compiled = jax.jit(lambda x: x + 1).lower(jax.ShapeDtypeStruct((8,), np.float32)).compile()
        program: Any = compiled.runtime_executable()
        content = bytes(program.serialize())
    except Exception:  # of a version of jaxlib that has no such form
        return []
    found = re.search(rb"(?:[+-][\w.-]+,){8,}", content)
    return sorted(name[1:].decode() for name in found[0].split(b",") if name.startswith(b"+")) if found else []


# from the widest to the narrowest
_LEVELS = {
    "amx": ("amx-tile",),
    "avx512": ("avx512f", "avx512bw", "avx512dq", "avx512vl"),
    "avx2": ("avx2", "fma"),
    "avx": ("avx",),
    "sse4.2": ("sse4.2",),
    "sse2": ("sse2",),
    "sve2": ("sve2",),
    "sve": ("sve",),
    "neon": ("neon",),
}


def instruction_set(abilities: Sequence[str]) -> str | None:
    """The widest vector instructions among them, in a word; None where nothing is known."""
    return next((name for name, needs in _LEVELS.items() if set(needs) <= set(abilities)), None)


def numeric_machine() -> dict[str, Any]:
    """What the last bits of a number depend on, beside the settings."""
    return {
        "backend": accelerator.backend(),
        "kind": accelerator.devices()[0].device_kind,
        "processor": f"{provenance.processor()} ({provenance.model_number()})",
        "instructions": instruction_set(compiled_for()),
        **{f"version of {name}": version for name, version in provenance.versions(("jax", "jaxlib", "flax")).items()},
    }


def machine_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for a run that is resumed on another machine; none if nothing differs."""
    changed = [f"{name} was {before[name]}, is {now[name]}" for name in before if before[name] != now.get(name)]
    return [f"this run is resumed on another machine ({'; '.join(changed)}): last bits may differ"] if changed else []


def device() -> dict[str, Any]:
    """The accelerator and the host."""
    first = accelerator.devices()[0]
    return {
        "backend": accelerator.backend(),
        "kind": first.device_kind,
        "count": len(accelerator.devices()),
        "processes": jax.process_count(),
        **provenance.machine(),
        "instructions": instruction_set(compiled_for()),
        "compiled_for": compiled_for(),
    }


def flags() -> dict[str, Any]:
    """Settings outside the config that can change numbers."""
    return {
        "settings": settings(),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "jax_default_matmul_precision": jax.config.values["jax_default_matmul_precision"],
        "jax_enable_x64": jax.config.values["jax_enable_x64"],
    }


def peak_memory_mb() -> float | None:
    """Peak MB of the device where it reports them (GPU, TPU), else of this process."""
    stats = accelerator.devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # bytes there, KiB here

"""What a report says about where it was made."""

from __future__ import annotations

import os
import resource
import sys
from typing import Any

import jax

from prfl_jax import provenance

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml_collections")


def versions() -> dict[str, str]:
    """Python and the packages that numbers depend on."""
    return provenance.versions(PACKAGES)


commit = provenance.commit


def device() -> dict[str, Any]:
    """The accelerator and the host."""
    first = jax.devices()[0]
    return {
        "backend": jax.default_backend(),
        "kind": first.device_kind,
        "count": jax.device_count(),
        "processes": jax.process_count(),
        **provenance.machine(),
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

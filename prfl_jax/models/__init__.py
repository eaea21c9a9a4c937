"""Networks: Flax modules over a matmul convolution, and the interface through which the engine trains any of them.

Names are loaded when first used, so that what reads `architectures` alone imports no JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prfl_jax.models.build import Model, build_model, load_model, save_model
    from prfl_jax.models.losses import make_loss
    from prfl_jax.models.nets import VGG11, Conv2

__all__ = ["VGG11", "Conv2", "Model", "build_model", "load_model", "make_loss", "save_model"]

_HOMES = {
    "VGG11": "nets",
    "Conv2": "nets",
    "Model": "build",
    "build_model": "build",
    "load_model": "build",
    "make_loss": "losses",
    "save_model": "build",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value

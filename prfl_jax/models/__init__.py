"""Models: the built-in Flax networks, and `Model`, the interface of pure functions through which the engine trains.

Names are loaded on first use, so that importing `architectures` alone does not import JAX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prfl_jax.system.lazy_names import lazy_names

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

__getattr__ = lazy_names(__name__, _HOMES)

"""Models: the built-in Flax networks, and `Model`, the interface of pure functions through which the engine trains.

Names are loaded on first use, so that importing `architectures` alone does not import JAX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prfl_jax.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from prfl_jax.models.build import Model, build_model, client_model, load_model, norm_leaves, save_model
    from prfl_jax.models.choices import CHECKS, STATES
    from prfl_jax.models.losses import make_loss
    from prfl_jax.models.nets import VGG11, Conv2
    from prfl_jax.models.state_statistics import check_statistics, statistics

__all__ = [
    "CHECKS",
    "STATES",
    "VGG11",
    "Conv2",
    "Model",
    "build_model",
    "check_statistics",
    "client_model",
    "load_model",
    "make_loss",
    "norm_leaves",
    "save_model",
    "statistics",
]

_HOMES = {
    "CHECKS": "choices",
    "STATES": "choices",
    "VGG11": "nets",
    "Conv2": "nets",
    "Model": "build",
    "build_model": "build",
    "check_statistics": "state_statistics",
    "client_model": "build",
    "load_model": "build",
    "make_loss": "losses",
    "norm_leaves": "build",
    "save_model": "build",
    "statistics": "state_statistics",
}

__getattr__ = lazy_names(__name__, _HOMES)

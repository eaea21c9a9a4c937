"""prfl_jax: asynchronous, heterogeneous federated learning with sub-models, simulated.

    import prfl_jax
    config = prfl_jax.load_config("configs/quickstart.py", {"rounds": 20})
    run = prfl_jax.Experiment(config).run("runs/first")

Names are loaded when first used, so that the clock can be imported without JAX.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as `typing` has it, which is not imported here: scripts begin with `prfl_jax.system.early`
if TYPE_CHECKING:
    from typing import Any

    from prfl_jax.config.cli import load_config
    from prfl_jax.config.defaults import default_config
    from prfl_jax.models.build import build_model, load_model, save_model
    from prfl_jax.runtime.experiment import Experiment, Finished
    from prfl_jax.system.errors import UserError

__version__ = "0.1.0"
__all__ = [
    "Experiment",
    "Finished",
    "UserError",
    "build_model",
    "default_config",
    "load_config",
    "load_model",
    "save_model",
]

_HOMES = {
    "Experiment": "runtime.experiment",
    "Finished": "runtime.experiment",
    "UserError": "system.errors",
    "build_model": "models.build",
    "default_config": "config.defaults",
    "load_config": "config.cli",
    "load_model": "models.build",
    "save_model": "models.build",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value

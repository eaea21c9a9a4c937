"""Sub-models: which values the sub-model of each density holds, its size, its masks, the delta split.

What is exported is NumPy only, as are `layers` and `leading`, which the clock uses; import the others directly.
"""

from typing import Any

from prfl_jax.submodel.choices import CHECKS, SUBMODELS, find_submodel
from prfl_jax.submodel.given import GivenSize
from prfl_jax.submodel.rule import Network, Submodel, SubmodelRule, Submodels
from prfl_jax.submodel.saved_masks import SavedMasks, load_masks
from prfl_jax.submodel.scores import IMPORTANCES, Importance
from prfl_jax.submodel.server_mask import PruningSettings, pruning_settings
from prfl_jax.submodel.size import ModelSize, to_percent
from prfl_jax.system.notices import deprecated_once

__all__ = [
    "CHECKS",
    "IMPORTANCES",
    "SUBMODELS",
    "GivenSize",
    "Importance",
    "ModelSize",
    "Network",
    "PruningSettings",
    "SavedMasks",
    "Submodel",
    "SubmodelRule",
    "Submodels",
    "find_submodel",
    "load_masks",
    "pruning_settings",
    "to_percent",
]


def __getattr__(name: str) -> Any:
    """Names of version 0.1."""
    if name == "SCORES":
        deprecated_once("prfl_jax.submodel.SCORES is now IMPORTANCES")
        return {kind: IMPORTANCES.find(kind).scores for kind in IMPORTANCES}
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

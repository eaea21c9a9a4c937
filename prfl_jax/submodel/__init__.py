"""Sub-models: sizes, nested masks, pruning by importance, the delta split.

What is exported is NumPy only, as are `layers` and `leading`, which the clock uses; import the others directly.
"""

from prfl_jax.submodel.choices import SCORES, SUBMODELS, GivenSize, Submodel, find_submodel
from prfl_jax.submodel.size import ModelSize, to_percent

__all__ = ["SCORES", "SUBMODELS", "GivenSize", "ModelSize", "Submodel", "find_submodel", "to_percent"]

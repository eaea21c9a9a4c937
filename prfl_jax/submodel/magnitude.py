"""Sub-models of the largest weights (FIARSE, Wu et al. 2024): masks from |w| of the server's model at each dispatch.

Each layer keeps at least 1 % of its weights, the rest is chosen over all layers. The mask is new with every dispatch,
so its bytes are charged with every dispatch.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from prfl_jax.submodel.rule import Arrays, Network, SubmodelRule, Submodels
from prfl_jax.submodel.size import ModelSize


class MagnitudeSize(ModelSize):
    """Sizes of sub-models whose mask is sent along with the values each time."""

    def sent_bytes(self, percent: int) -> int:
        """Values and mask."""
        return self.value_bytes(percent) + super().mask_bytes(percent)

    def mask_bytes(self, percent: int) -> int:
        """0: no mask is sent once for several dispatches."""
        return 0


class Magnitude(SubmodelRule):
    """The weights of largest magnitude."""

    @property
    def by_magnitude(self) -> bool:
        return True

    def fit(self, network: Network, name: str) -> Submodels:
        """Masks from the weights themselves; there are no levels."""
        fields = {field.name: getattr(network.size, field.name) for field in dataclasses.fields(ModelSize)}
        size = MagnitudeSize(**{**fields, "min_percent": 1})
        counts = np.array([0, *(size.count(percent) for percent in range(1, 101))], np.int32)

        def masks(levels: Arrays, weights: Arrays, percent: Any) -> Arrays:
            import jax.numpy as jnp

            from prfl_jax.submodel.levels import compute_levels

            magnitudes = tuple(jnp.abs(weight) for weight in weights)
            count = jnp.asarray(counts)[percent]
            own = compute_levels(magnitudes, percent[None], count[None], base=size.base_counts())
            return tuple(level <= percent.astype(jnp.int8) for level in own)

        return Submodels(size, levels=(), masks=masks)

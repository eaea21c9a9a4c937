"""FIARSE's sub-models (Wu et al. 2024): the weights of largest |w| in the server's model at each dispatch.

Each layer keeps at least 1 % of its weights; the rest is chosen over all layers. The mask changes with every dispatch,
so every dispatch is charged for its bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from prfl_jax.submodel.rule import Arrays, Network, SubmodelRule, Submodels
from prfl_jax.submodel.size import ModelSize


class MagnitudeSize(ModelSize):
    """Sizes of sub-models whose mask is sent with the values in every dispatch."""

    def sent_bytes(self, percent: int) -> int:
        """Bytes of values and mask."""
        return self.value_bytes(percent) + super().mask_bytes(percent)

    def mask_bytes(self, percent: int) -> int:
        """0: no mask serves several dispatches."""
        return 0


class Magnitude(SubmodelRule):
    """The weights of largest magnitude."""

    @property
    def by_magnitude(self) -> bool:
        return True

    def fit(self, network: Network, name: str) -> Submodels:
        """Sizes, and masks from the weights at the dispatch instead of levels."""
        size = MagnitudeSize(**{**vars(network.size), "min_percent": 1})
        counts = np.array([0, *map(size.count, range(1, 101))], np.int32)

        def masks(levels: Arrays, weights: Arrays, percent: Any) -> Arrays:
            import jax.numpy as jnp

            from prfl_jax.submodel.levels import compute_levels

            count, magnitudes = jnp.asarray(counts)[percent], tuple(map(jnp.abs, weights))
            found = compute_levels(magnitudes, percent[None], count[None], base=size.base_counts())
            return tuple(level <= 100 for level in found)  # 101: not held

        return Submodels(size, levels=(), masks=masks)

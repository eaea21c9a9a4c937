"""Edge pruning: every client its own masks and its own model.

Zhou, Duan, Qiu, Zhang, Tian, Zheng and Zhu, "Personalized Federated Learning Incorporating Adaptive Model Pruning at
the Edge" (Electronics 2024). `layerwise` and `threshold` differ in the initial stage (Algorithm 1, Eq. 5).
"""

from __future__ import annotations

import dataclasses

from prfl_jax.strategies.method import EVERYBODY, Method

LAYERWISE = Method(
    submodel="layerwise",
    density="full",
    aggregation="merge",
    window=EVERYBODY,
    transport="one_copy",
    local="personal",
    source="edge pruning, Zhou et al. 2024, Algorithm 1",
)

METHODS = {
    "layerwise": LAYERWISE,
    "threshold": dataclasses.replace(LAYERWISE, submodel="threshold", source="edge pruning, Zhou et al. 2024, Eq. 5"),
}

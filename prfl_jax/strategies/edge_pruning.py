"""Edge pruning: every client its own masks and its own model; and mixtures with PR-FL and FedMP.

Zhou, Duan, Qiu, Zhang, Tian, Zheng and Zhu, "Personalized Federated Learning Incorporating Adaptive Model Pruning at
the Edge" (Electronics 2024). `layerwise` and `threshold` differ in the initial stage (Algorithm 1, Eq. 5).
"""

from __future__ import annotations

import dataclasses

from prfl_jax.strategies.method import EVERYBODY, Method
from prfl_jax.strategies.prfl import PRFL

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
    # mixtures that are in no paper
    "layerwise_bandit": dataclasses.replace(
        LAYERWISE, source="FedMP's bandit over each client's threshold", submodel="own_shares", density="bandit"
    ),
    "prfl_personal": dataclasses.replace(
        PRFL, source="PR-FL over masks of each client", submodel="own_sizes", transport="one_copy", local="personal"
    ),
}

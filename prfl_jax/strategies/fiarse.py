"""FIARSE: a client's sub-model holds the weights of largest magnitude, chosen anew at each local step.

Wu, Wang, Wang, Liu, Su and Gao, "FIARSE: Model-Heterogeneous Federated Learning via Importance-Aware Submodel
Extraction" (NeurIPS 2024, arXiv:2407.19389). `fiarse_recovery` puts PR-FL's recovery on top.
"""

from __future__ import annotations

import dataclasses

from prfl_jax.strategies.heterofl import HETEROFL, recovering

FIARSE = dataclasses.replace(
    HETEROFL,
    submodel="magnitude",
    local="magnitude_sgd",
    source="FIARSE, Wu et al. 2024: the largest weights, anew at each local step",
)

METHODS = {"fiarse": FIARSE, "fiarse_recovery": recovering(FIARSE)}

"""FjORD: ordered dropout, in which each local step draws a width up to the client's tier.

Horvath, Laskaridis, Almeida, Leontiadis, Venieris and Lane, "FjORD: Fair and Accurate Federated Learning under
heterogeneous targets with Ordered Dropout" (NeurIPS 2021, arXiv:2102.13451). `fjord_recovery` puts PR-FL's recovery
on top.
"""

from __future__ import annotations

import dataclasses

from prfl_jax.strategies.heterofl import HETEROFL, recovering

FJORD = dataclasses.replace(
    HETEROFL, local="ordered_sgd", source="FjORD, Horvath et al. 2021: each local step draws its width"
)

METHODS = {"fjord": FJORD, "fjord_recovery": recovering(FJORD)}

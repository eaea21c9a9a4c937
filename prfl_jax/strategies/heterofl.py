"""HeteroFL: each client trains the leading channels of every layer, as many as its tier has.

Diao, Ding and Tarokh, "HeteroFL: Computation and Communication Efficient Federated Learning for Heterogeneous Clients"
(ICLR 2021, arXiv:2010.01264). `heterofl_windowed` is the form of PR-FL's tables; `heterofl_recovery` puts PR-FL's
recovery on top.
"""

from __future__ import annotations

import dataclasses

from prfl_jax.strategies.method import EVERYBODY, FIXED, Method

HETEROFL = Method(
    submodel="leading",
    density="tiers",
    aggregation="counted",
    window=EVERYBODY,
    transport="distinct",
    local="scaled_sgd",
    source="HeteroFL, Diao et al. 2021",
)

METHODS = {
    "heterofl": HETEROFL,
    "heterofl_windowed": dataclasses.replace(
        HETEROFL, window=FIXED, source="HeteroFL in windows of fixed length, as in PR-FL's tables"
    ),
    "heterofl_recovery": dataclasses.replace(
        HETEROFL,
        window=FIXED,
        density="tiers_recovery",
        source="PR-FL's recovery on top of HeteroFL; the 2026 follow-up to PR-FL found recovery to help any sub-models",
    ),
}

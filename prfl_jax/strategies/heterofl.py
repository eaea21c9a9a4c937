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


def recovering(row: Method) -> Method:
    """A row of tiers with PR-FL's recovery on top, in windows of fixed length."""
    source = f"PR-FL's recovery on top of {row.source}"
    return dataclasses.replace(row, window=FIXED, density="tiers_recovery", source=source)


METHODS = {
    "heterofl": HETEROFL,
    "heterofl_windowed": dataclasses.replace(
        HETEROFL, window=FIXED, source="HeteroFL in windows of fixed length, as in PR-FL's tables"
    ),
    # the 2026 follow-up to PR-FL found recovery to help any sub-models
    "heterofl_recovery": recovering(HETEROFL),
}

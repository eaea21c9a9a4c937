"""Pruning with one mask for all clients, which the server changes: what edge pruning is compared with.

PruneFL: Jiang, Wang, Valls, Ko, Lee, Leung and Tassiulas, "Model Pruning Enables Efficient Federated Learning on Edge
Devices" (IEEE Transactions on Neural Networks and Learning Systems, 2022). SNIP: Lee, Ajanthan and Torr, "SNIP:
Single-Shot Network Pruning Based on Connection Sensitivity" (ICLR 2019). SNIP and iterative pruning are in the
federated forms of PruneFL's public code.
"""

from __future__ import annotations

import dataclasses

from prfl_jax.strategies.method import EVERYBODY, Method

PRUNEFL = Method(
    submodel="prunefl",
    density="full",
    aggregation="merge",
    window=EVERYBODY,
    transport="one_copy",
    local="sgd",
    source="PruneFL, Jiang et al. 2022",
)

METHODS = {
    "prunefl": PRUNEFL,
    "conventional": dataclasses.replace(
        PRUNEFL, submodel="conventional", source="the first stage of PruneFL alone, Jiang et al. 2022"
    ),
    "snip": dataclasses.replace(PRUNEFL, submodel="snip", source="SNIP, Lee et al. 2019, once after round 1"),
    "iterative": dataclasses.replace(
        PRUNEFL, submodel="iterative", source="iterative magnitude pruning, as in Jiang et al. 2022"
    ),
}

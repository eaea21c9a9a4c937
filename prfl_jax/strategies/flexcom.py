"""FlexCom: FedAvg whose clients send the largest values of their updates, as many as their links have time for.

Li, Shi, Hou, Li, Pan and Han, "To Talk or to Work: Flexible Communication Compression for Energy Efficient Federated
Learning over Heterogeneous Mobile Edge Devices" (INFOCOM 2021), one of FedMP's baselines. A client sends as many values
as fit the time in which the median client uploads all (`clients.up_mb_s`), with their positions; the others are added
to its next update.
"""

from __future__ import annotations

from prfl_jax.strategies.fedavg import full_models

METHODS = {
    "flexcom": full_models(
        "FlexCom, Li et al. 2021: the largest values of each update, as many as the client has time for", upload="topk"
    ),
}

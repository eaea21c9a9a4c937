"""FedRolex: the channels that a client trains roll on by one in each window.

Alam, Liu, Yan and Zhang, "FedRolex: Model-Heterogeneous Federated Learning with Rolling Sub-Model Extraction"
(NeurIPS 2022, arXiv:2212.01548). `fedrolex_recovery` puts PR-FL's recovery on top.
"""

from __future__ import annotations

import dataclasses

from prfl_jax.strategies.heterofl import HETEROFL, recovering

FEDROLEX = dataclasses.replace(
    HETEROFL, submodel="rolling", local="sgd", source="FedRolex, Alam et al. 2022: the kept channels roll each window"
)

METHODS = {"fedrolex": FEDROLEX, "fedrolex_recovery": recovering(FEDROLEX)}

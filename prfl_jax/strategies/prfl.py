"""PR-FL (Ma 2024): nested sub-models, densities from round times, recovery, buffered MaskFedAvg; and its ablations.

Chengjie Ma, "Federated Learning based on Pruning and Recovery" (2024): Algorithms 1-3, and the ablations of section
IV-E. Clients get nested sub-models whose densities balance the round times (Eq. 2-4) and recover where a client stops
improving (Eq. 5); the server averages a buffer by masks (Eq. 7-11) at the end of windows of fixed length.
"""

from __future__ import annotations

import dataclasses

from prfl_jax.strategies.method import EVERYBODY, FIXED, Method

PRFL = Method(
    submodel="nested",
    density="recovery",
    aggregation="buffered_maskfedavg",
    window=FIXED,
    transport="delta",
    local="sgd",
    source="PR-FL, Algorithms 1-3",
)


def _ablation(source: str, **choices: object) -> Method:
    return dataclasses.replace(PRFL, source=f"PR-FL, section IV-E, {source}", **choices)  # type: ignore[arg-type]


METHODS = {
    "prfl": PRFL,
    "prfl_norecover": _ablation("noRecover: densities stay where Eq. 2 puts them", density="time_balance"),
    "prfl_nobuff": _ablation("nobuff: only what arrived is averaged", aggregation="unbuffered_maskfedavg"),
    "prfl_fedavg": _ablation("fedavg: pruned weights count as 0", aggregation="buffered_fedavg"),
    "prfl_nores": _ablation("noRes: each sub-model is sent by itself", transport="distinct"),
    "prfl_syn": _ablation("syn: every window waits for all", window=EVERYBODY),
}

"""FedMP's family: structured pruning by a bandit, the methods that FedMP is compared with, and mixtures with others.

Jiang, Xu, Xu, Wang, Qiao and Zhao, "FedMP: Federated Learning through Adaptive Model Pruning in Heterogeneous Edge
Computing" (ICDE 2022). Its Syn-FL is the row `fedavg`, its FedProx `fedprox`, its FlexCom `flexcom`. UP-FL (Jiang et
al. 2019), one ratio for all workers, is read as the bandit with a single agent. Asyn-FL, for which it cites FedSA (Ma,
Xu, Xu, Jiang, Huang and Huang, JSAC 2021), is read as Algorithm 2 without pruning: the server waits for the first
m = `window.k` of all clients, takes the plain mean of their models, and sends it to these m.
"""

from __future__ import annotations

import dataclasses

from prfl_jax.strategies.fedavg import full_models
from prfl_jax.strategies.fedbuff import ON_ARRIVAL
from prfl_jax.strategies.method import EVERYBODY, Method, WindowChoice
from prfl_jax.strategies.prfl import PRFL

# Algorithm 2: the first m of N arrivals close a round, and these m clients wait for its end
FIRST_M = WindowChoice(close="k_arrivals", first_waits_for_all=False, dispatch="window_end")

FEDMP = Method(
    submodel="filters",
    density="bandit",
    aggregation="r2sp",
    window=EVERYBODY,
    transport="distinct",
    local="sgd",
    source="FedMP, Jiang et al. 2022",
)


def _variant(source: str, **choices: object) -> Method:
    return dataclasses.replace(FEDMP, source=f"FedMP, {source}", **choices)  # type: ignore[arg-type]


METHODS = {
    "fedmp": FEDMP,
    "fedmp_literal": _variant("as printed: its agents explore for ever", density="bandit_literal"),
    "fedmp_bsp": _variant("section V-D, BSP: pruned weights count as 0", aggregation="bsp"),
    "up_fl": _variant("its UP-FL: one ratio for all clients", density="bandit_uniform"),
    "asyn_fedmp": _variant("Algorithm 2: a round ends with window.k arrivals", window=FIRST_M),
    "asyn_fl": full_models("Asyn-FL of FedMP, Jiang et al. 2022: a round ends with window.k arrivals", window=FIRST_M),
    # mixtures that are in no paper
    "fedmp_nested": _variant("its bandit over PR-FL's nested weights", submodel="nested", transport="delta"),
    "fedmp_recovery": dataclasses.replace(
        PRFL, source="PR-FL over FedMP's filters", submodel="filters", transport="distinct"
    ),
    "fedmp_fedbuff": _variant("its R2SP in FedBuff's windows", window=ON_ARRIVAL),
}

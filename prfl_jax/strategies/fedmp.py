"""FedMP's family: structured pruning by a bandit, and the methods that FedMP is compared with.

Jiang, Xu, Xu, Wang, Qiao and Zhao, "FedMP: Federated Learning through Adaptive Model Pruning in Heterogeneous Edge
Computing" (ICDE 2022). Its Syn-FL is the row `fedavg`, its FedProx `fedprox`, its FlexCom `flexcom`. Asyn-FL, for which
it cites FedSA (Ma, Xu, Xu, Jiang, Huang and Huang, JSAC 2021), is read as Algorithm 2 without pruning: the server waits
for the first m = `window.k` of all clients, takes the plain mean of their models, and sends it to these m.
"""

from __future__ import annotations

from prfl_jax.strategies.fedavg import full_models
from prfl_jax.strategies.method import WindowChoice

# Algorithm 2: the first m of N arrivals close a round, and these m clients wait for its end
FIRST_M = WindowChoice(close="k_arrivals", first_waits_for_all=False, dispatch="window_end")

METHODS = {
    "asyn_fl": full_models("Asyn-FL of FedMP, Jiang et al. 2022: a round ends with window.k arrivals", window=FIRST_M),
}

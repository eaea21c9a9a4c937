"""FedBuff: the server collects K updates, whoever sends them, and takes one step with their mean.

Nguyen, Malik, Zhan, Yousefpour, Rabbat, Malek and Huba, "Federated Learning with Buffered Asynchronous Aggregation"
(AISTATS 2022). K is `window.k`.
"""

from __future__ import annotations

from prfl_jax.strategies.fedavg import full_models
from prfl_jax.strategies.method import WindowChoice

ON_ARRIVAL = WindowChoice(close="k_arrivals", first_waits_for_all=False, dispatch="on_arrival")

METHODS = {
    "fedbuff": full_models(
        "FedBuff, Nguyen et al. 2022: a step after window.k arrivals",
        aggregation="fedbuff",
        window=ON_ARRIVAL,
    ),
}

"""FedProx: FedAvg whose clients do as many steps as they have time for, held near the model they were sent.

Li, Sahu, Zaheer, Sanjabi, Talwalkar and Smith, "Federated Optimization in Heterogeneous Networks" (MLSys 2020,
arXiv:1812.06127). A client does as many of the round's steps as fit the time that the median client takes for all of
them (`clients.flop_s`); where computing takes no time, all. mu is `local.prox_mu`, 0.01 unless it is set.
"""

from __future__ import annotations

from prfl_jax.strategies.fedavg import full_models

METHODS = {
    "fedprox": full_models(
        "FedProx, Li et al. 2020: a proximal term, and as many local steps as the client has time for",
        local="proximal_own_steps",
    ),
}

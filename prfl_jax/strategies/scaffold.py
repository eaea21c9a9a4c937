"""SCAFFOLD: FedAvg whose clients correct their gradients by control variates (option II).

Karimireddy, Kale, Mohri, Reddi, Stich and Suresh, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning"
(ICML 2020, arXiv:1910.06378). Each client keeps a control variate for its next round; the server's is sent beside the
model, so a round costs twice the bytes both ways. Clients step by plain SGD.
"""

from __future__ import annotations

from prfl_jax.strategies.fedavg import full_models

METHODS = {
    "scaffold": full_models(
        "SCAFFOLD, Karimireddy et al. 2020: gradients corrected by control variates", local="scaffold"
    ),
}

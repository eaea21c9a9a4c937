"""FedOpt: the server takes the clients' mean change as a gradient, and steps by an optimiser of its own.

Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar and McMahan, "Adaptive Federated Optimization" (ICLR 2021,
arXiv:2003.00295): FedAdagrad, FedAdam and FedYogi, Algorithm 2. FedAvgM: Hsu, Qi and Brown, "Measuring the Effects of
Non-Identical Data Distribution for Federated Visual Classification" (2019, arXiv:1909.06335). Rounds wait for all
clients, as FedAvg's. The rate of the server's step is `aggregation.server_lr`.
"""

from __future__ import annotations

from prfl_jax.strategies.fedavg import full_models

METHODS = {
    "fedavgm": full_models("FedAvgM, Hsu et al. 2019: FedAvg with momentum at the server", optimizer="sgdm"),
    "fedadagrad": full_models("FedAdagrad, Reddi et al. 2021: FedAvg with Adagrad at the server", optimizer="adagrad"),
    "fedadam": full_models("FedAdam, Reddi et al. 2021: FedAvg with Adam at the server", optimizer="adam"),
    "fedyogi": full_models("FedYogi, Reddi et al. 2021: FedAvg with Yogi at the server", optimizer="yogi"),
}

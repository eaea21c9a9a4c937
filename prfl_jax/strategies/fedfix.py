"""FedFix: windows of fixed length, updates weighted so that slow clients count as much as fast ones.

Fraboni, Vidal, Kameni and Lorenzi, "A General Theory for Federated Optimization with Asynchronous and Heterogeneous
Clients Updates" (JMLR 2023, arXiv:2206.10189).
"""

from __future__ import annotations

from prfl_jax.strategies.fedavg import full_models
from prfl_jax.strategies.method import FIXED_FROM_THE_START

METHODS = {
    "fedfix": full_models(
        "FedFix, Fraboni et al. 2023: windows of fixed length", aggregation="fedfix", window=FIXED_FROM_THE_START
    ),
}

"""FedAsync: the server mixes each client's model into its own, the less the staler it is.

Xie, Koyejo and Gupta, "Asynchronous Federated Optimization" (arXiv:1903.03934, 2019). `fedasync` is the paper's own
form, with its constant a = 0.5 of the polynomial s(tau); `fedasyn` is the form of PR-FL's tables, which mixes at the
end of windows of fixed length.
"""

from __future__ import annotations

from prfl_jax.strategies.fedavg import full_models
from prfl_jax.strategies.method import FIXED_FROM_THE_START, WindowChoice

METHODS = {
    "fedasyn": full_models(
        "FedAsyn of PR-FL's tables: mixing in order of arrival, windows of fixed length",
        aggregation="mixing",
        window=FIXED_FROM_THE_START,
    ),
    "fedasync": full_models(
        "FedAsync, Xie et al. 2019: each arrival is mixed in at once",
        aggregation="mixing",
        window=WindowChoice(close="each_arrival", first_waits_for_all=False, dispatch="on_arrival"),
        transport="unicast",
        staleness_a={"polynomial": 0.5},
    ),
}

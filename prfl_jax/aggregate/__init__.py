"""How arrivals become the next server model: weights on the host, averaging on the device.

The kernels are in `maskfedavg.py`; they need JAX, what is exported here does not.
"""

from prfl_jax.aggregate.choices import AGGREGATIONS, Aggregation, Closing, Window, find_aggregation, weights_of
from prfl_jax.aggregate.weights import Slot, client_weights, staleness_weight

__all__ = [
    "AGGREGATIONS",
    "Aggregation",
    "Closing",
    "Slot",
    "Window",
    "client_weights",
    "find_aggregation",
    "staleness_weight",
    "weights_of",
]

"""How arrivals become the next server model: weights on the host, averaging on the device."""

from prfl_jax.aggregate.maskfedavg import fedavg, maskfedavg
from prfl_jax.aggregate.weights import Slot, aggregation_weights, staleness_weight

__all__ = ["Slot", "aggregation_weights", "fedavg", "maskfedavg", "staleness_weight"]

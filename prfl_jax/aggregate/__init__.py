"""How arrivals become the next server model: weights on the host, averaging on the device.

The kernels are in `maskfedavg.py`; they need JAX, what is exported here does not.
"""

import warnings
from typing import Any

from prfl_jax.aggregate.choices import (
    AGGREGATIONS,
    Aggregation,
    AggregationWeights,
    CloseContext,
    find_aggregation,
    weights_of,
)
from prfl_jax.aggregate.weights import Slot, client_weights, staleness_weight

__all__ = [
    "AGGREGATIONS",
    "Aggregation",
    "AggregationWeights",
    "CloseContext",
    "Slot",
    "client_weights",
    "find_aggregation",
    "staleness_weight",
    "weights_of",
]

_RENAMED = {"Closing": AggregationWeights, "Window": CloseContext}  # names of version 0.1, which users' files import


def __getattr__(name: str) -> Any:
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = _RENAMED[name]
    warnings.warn(f"prfl_jax.aggregate.{name} is now {found.__name__}", DeprecationWarning, stacklevel=2)
    return found

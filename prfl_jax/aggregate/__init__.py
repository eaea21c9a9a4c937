"""How arrivals become the next server model: weights on the host (`weight_rules.py`), kernels on the device.

What is exported here does not import JAX.
"""

from typing import Any

from prfl_jax.aggregate.checks import CHECKS
from prfl_jax.aggregate.choices import AGGREGATIONS, Aggregation, find_aggregation, weights_of
from prfl_jax.aggregate.context import AggregationWeights, CloseContext
from prfl_jax.aggregate.kernels import AggregationKernel
from prfl_jax.aggregate.server_optimizers import SERVER_OPTIMIZERS, server_lr_in_force
from prfl_jax.aggregate.weights import (
    CLIENT_WEIGHTS,
    STALENESS,
    Slot,
    aggregation_in_force,
    client_weights,
    staleness_weight,
)
from prfl_jax.system.notices import deprecated_once

__all__ = [
    "AGGREGATIONS",
    "CHECKS",
    "CLIENT_WEIGHTS",
    "SERVER_OPTIMIZERS",
    "STALENESS",
    "Aggregation",
    "AggregationKernel",
    "AggregationWeights",
    "CloseContext",
    "Slot",
    "aggregation_in_force",
    "client_weights",
    "find_aggregation",
    "server_lr_in_force",
    "staleness_weight",
    "weights_of",
]

_RENAMED = {"Closing": AggregationWeights, "Window": CloseContext}  # names of version 0.1, which users' files import


def __getattr__(name: str) -> Any:
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = _RENAMED[name]
    deprecated_once(f"prfl_jax.aggregate.{name} is now {found.__name__}")
    return found

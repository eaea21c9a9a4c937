"""Which density each client trains (NumPy only): round times, early stopping, recovery."""

from prfl_jax.density.early_stopping import EarlyStopping
from prfl_jax.density.policy import (
    DENSITIES,
    BalancedDensity,
    Decision,
    FullDensity,
    RecoveringDensity,
    RecoveringTiers,
    TieredDensity,
    make_density,
)
from prfl_jax.density.running import RunningPercents
from prfl_jax.density.time_balance import RULES, TimeBalance

__all__ = [
    "DENSITIES",
    "RULES",
    "BalancedDensity",
    "Decision",
    "EarlyStopping",
    "FullDensity",
    "RecoveringDensity",
    "RecoveringTiers",
    "RunningPercents",
    "TieredDensity",
    "TimeBalance",
    "make_density",
]

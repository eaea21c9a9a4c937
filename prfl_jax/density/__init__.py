"""Which density each client trains (NumPy only): round times, early stopping, recovery."""

from prfl_jax.density.early_stopping import EarlyStopping
from prfl_jax.density.policy import (
    DENSITIES,
    BalancedDensity,
    Decision,
    FullDensity,
    RecoveringDensity,
    RecoveringTiers,
    Recovery,
    TieredDensity,
    find_density,
    make_density,
)
from prfl_jax.density.running import RunningDensities
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
    "Recovery",
    "RunningDensities",
    "TieredDensity",
    "TimeBalance",
    "find_density",
    "make_density",
]

"""The density seam: which share of the model each client trains, decided after every `density.interval` windows.

`base.py` has the contract, `policies.py` the built-in policies, `choices.py` the table of `density.name`.
"""

from prfl_jax.density.base import Decision, DensityPolicy
from prfl_jax.density.checks import CHECKS
from prfl_jax.density.choices import (
    DENSITIES,
    evidence_needed,
    find_density,
    make_density,
    prunes,
    prunes_by,
    uploads_squares,
)
from prfl_jax.density.early_stopping import EarlyStopping
from prfl_jax.density.evidence import OF_CLIENTS, OF_SERVER, Evidence
from prfl_jax.density.policies import (
    BalancedDensity,
    FullDensity,
    RecoveringDensity,
    RecoveringTiers,
    Recovery,
    TieredDensity,
)
from prfl_jax.density.running import RunningDensities
from prfl_jax.density.time_balance import RULES, TimeBalance

__all__ = [
    "CHECKS",
    "DENSITIES",
    "OF_CLIENTS",
    "OF_SERVER",
    "RULES",
    "BalancedDensity",
    "Decision",
    "DensityPolicy",
    "EarlyStopping",
    "Evidence",
    "FullDensity",
    "RecoveringDensity",
    "RecoveringTiers",
    "Recovery",
    "RunningDensities",
    "TieredDensity",
    "TimeBalance",
    "evidence_needed",
    "find_density",
    "make_density",
    "prunes",
    "prunes_by",
    "uploads_squares",
]

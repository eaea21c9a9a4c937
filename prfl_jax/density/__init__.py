"""The density seam: which share of the model each client trains, decided after every `density.interval` windows.

`base.py` has the contract, `policies.py` the built-in policies, `choices.py` the table of `density.name`.
"""

from prfl_jax.density.bandit import BanditDensity, LiteralBandit, UniformBandit
from prfl_jax.density.base import Decision, DensityPolicy
from prfl_jax.density.checks import CHECKS
from prfl_jax.density.choices import (
    DENSITIES,
    evidence_needed,
    find_density,
    make_density,
    prunes,
    prunes_by,
    reads_losses,
    setting_in_force,
    uploads_squares,
)
from prfl_jax.density.early_stopping import EarlyStopping
from prfl_jax.density.eucb import SCALES
from prfl_jax.density.evidence import OF_CLIENTS, OF_SERVER, OF_TRAINING, Evidence
from prfl_jax.density.policies import (
    BalancedDensity,
    FullDensity,
    RecoveringDensity,
    RecoveringTiers,
    Recovery,
    TieredDensity,
)
from prfl_jax.density.rewards import LOSS_CHANGES
from prfl_jax.density.running import RunningDensities
from prfl_jax.density.time_balance import RULES, TimeBalance

__all__ = [
    "CHECKS",
    "DENSITIES",
    "LOSS_CHANGES",
    "OF_CLIENTS",
    "OF_SERVER",
    "OF_TRAINING",
    "RULES",
    "SCALES",
    "BalancedDensity",
    "BanditDensity",
    "Decision",
    "DensityPolicy",
    "EarlyStopping",
    "Evidence",
    "FullDensity",
    "LiteralBandit",
    "RecoveringDensity",
    "RecoveringTiers",
    "Recovery",
    "RunningDensities",
    "TieredDensity",
    "TimeBalance",
    "UniformBandit",
    "evidence_needed",
    "find_density",
    "make_density",
    "prunes",
    "prunes_by",
    "reads_losses",
    "setting_in_force",
    "uploads_squares",
]

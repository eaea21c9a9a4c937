"""Local work: what a client does with the model it was sent. What is exported imports no JAX; `sgd` does."""

from typing import Any

from prfl_jax.local import choices, optimizer_checks
from prfl_jax.local.choices import LOCAL_WORKS, find_local, prox_mu_in_force
from prfl_jax.local.kept import find_client_state
from prfl_jax.local.optimizers import LR_SCHEDULES, OPTIMIZERS
from prfl_jax.local.work import Batches, ClientState, LocalInput, LocalResult, LocalSettings, LocalTask, LocalWork
from prfl_jax.system.notices import deprecated_once

__all__ = [
    "CHECKS",
    "LOCAL_WORKS",
    "LR_SCHEDULES",
    "OPTIMIZERS",
    "Batches",
    "ClientState",
    "LocalInput",
    "LocalResult",
    "LocalSettings",
    "LocalTask",
    "LocalWork",
    "find_client_state",
    "find_local",
    "prox_mu_in_force",
]

# run by `config/validate.py`
CHECKS = (*choices.CHECKS, *optimizer_checks.CHECKS)


def __getattr__(name: str) -> Any:
    """Names of version 0.1."""
    if name == "make_local_round":
        deprecated_once("prfl_jax.local.make_local_round is now in prfl_jax.local.sgd")
        from prfl_jax.local.sgd import make_local_round

        return make_local_round
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

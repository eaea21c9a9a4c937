"""Local work: what a client does with the model it was sent. What is exported imports no JAX; `sgd` does."""

from prfl_jax.local.choices import CHECKS, LOCAL_WORKS, find_local
from prfl_jax.local.work import Batches, LocalInput, LocalResult, LocalSettings, LocalTask, LocalWork

__all__ = [
    "CHECKS",
    "LOCAL_WORKS",
    "Batches",
    "LocalInput",
    "LocalResult",
    "LocalSettings",
    "LocalTask",
    "LocalWork",
    "find_local",
]

"""Sweeps: many trials of one experiment over a space of config keys, with Optuna (`scripts/sweep.py`)."""

from prfl_jax.sweep.settings import Sweep

__all__ = ["Sweep"]

"""Sweeps: many trials of one experiment over a space of config keys, on Optuna."""

from prfl_jax.sweep.settings import Sweep

__all__ = ["Sweep"]

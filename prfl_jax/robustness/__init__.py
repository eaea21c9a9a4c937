"""Attacks by malicious clients, the update filter of the server, and the privacy accountant."""

from prfl_jax.robustness.config_checks import CHECKS

__all__ = ["CHECKS"]

"""The config of a run: defaults, schema, validation, command line. What is exported imports no JAX."""

from prfl_jax.config.base_file import load_beside
from prfl_jax.config.defaults import ENDLESS, default_config

__all__ = ["ENDLESS", "default_config", "load_beside"]

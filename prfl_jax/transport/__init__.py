"""What travels and what it costs (NumPy only)."""

from prfl_jax.transport.costs import BYTE_RULES, make_costs

__all__ = ["BYTE_RULES", "make_costs"]

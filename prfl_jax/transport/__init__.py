"""What a dispatch costs in bytes and seconds (NumPy only); which streams it becomes is `prfl_jax.clock.transports`."""

from prfl_jax.transport.byte_rules import BYTE_RULES, ByteRule, find_byte_rule
from prfl_jax.transport.checks import CHECKS
from prfl_jax.transport.costs import make_costs

__all__ = ["BYTE_RULES", "CHECKS", "ByteRule", "find_byte_rule", "make_costs"]

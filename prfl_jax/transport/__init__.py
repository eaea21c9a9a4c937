"""What a dispatch costs in bytes and seconds (NumPy only); which streams it becomes is `prfl_jax.clock.transports`."""

from prfl_jax.transport.byte_rules import BYTE_RULES, ByteRule, find_byte_rule
from prfl_jax.transport.checks import CHECKS
from prfl_jax.transport.costs import make_costs, upload_sizes
from prfl_jax.transport.uploads import UPLOADS, WHOLE, Upload, UploadSizes, find_upload

__all__ = [
    "BYTE_RULES",
    "CHECKS",
    "UPLOADS",
    "WHOLE",
    "ByteRule",
    "Upload",
    "UploadSizes",
    "find_byte_rule",
    "find_upload",
    "make_costs",
    "upload_sizes",
]

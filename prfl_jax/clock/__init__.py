"""The simulated clock: events, network, windows. NumPy and heapq only."""

from prfl_jax.clock.clock import Clock
from prfl_jax.clock.settings import in_turn, network_from_config, rule_from_config
from prfl_jax.clock.types import (
    CLOSE_RULES,
    DISPATCH_RULES,
    TRANSPORTS,
    Arrival,
    Costs,
    Dispatch,
    Network,
    Window,
    WindowRule,
)

__all__ = [
    "CLOSE_RULES",
    "DISPATCH_RULES",
    "TRANSPORTS",
    "Arrival",
    "Clock",
    "Costs",
    "Dispatch",
    "Network",
    "Window",
    "WindowRule",
    "in_turn",
    "network_from_config",
    "rule_from_config",
]

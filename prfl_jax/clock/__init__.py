"""The simulated clock: events, network, windows, faults. NumPy and heapq only."""

from prfl_jax.clock.clock import Clock
from prfl_jax.clock.faults import FAILURES, KINDS, Faults, fault_files, faults_from_config, faults_on
from prfl_jax.clock.faulty_clock import FaultyClock
from prfl_jax.clock.settings import clock_from_config, in_turn, network_from_config, rule_from_config
from prfl_jax.clock.ties import after
from prfl_jax.clock.types import (
    CLOSE_RULES,
    COUNTED,
    DISPATCH_RULES,
    SYNCHRONOUS,
    TRANSPORTS,
    Arrival,
    Costs,
    Dispatch,
    Failure,
    Network,
    Repeat,
    Window,
    WindowRule,
)

__all__ = [
    "CLOSE_RULES",
    "COUNTED",
    "DISPATCH_RULES",
    "FAILURES",
    "SYNCHRONOUS",
    "KINDS",
    "TRANSPORTS",
    "Arrival",
    "Clock",
    "Costs",
    "Dispatch",
    "Failure",
    "Faults",
    "FaultyClock",
    "Network",
    "Repeat",
    "Window",
    "WindowRule",
    "after",
    "clock_from_config",
    "fault_files",
    "faults_from_config",
    "faults_on",
    "in_turn",
    "network_from_config",
    "rule_from_config",
]

"""The simulated clock: events, network, windows, transports, faults. NumPy and heapq only."""

from prfl_jax.clock.checks import CHECKS
from prfl_jax.clock.clock import Clock
from prfl_jax.clock.close_rules import (
    CLOSE_RULES,
    CloseCondition,
    CloseRule,
    Opening,
    OpenWindow,
    find_close_rule,
)
from prfl_jax.clock.dispatch_rules import DISPATCH_RULES, DispatchRule, find_dispatch_rule
from prfl_jax.clock.faults import FAILURES, KINDS, Faults, fault_files, faults_from_config
from prfl_jax.clock.faulty_clock import FaultyClock
from prfl_jax.clock.settings import clock_from_config, faults_on, in_turn, network_from_config, rule_from_config
from prfl_jax.clock.ties import after
from prfl_jax.clock.transports import TRANSPORTS, Transport, find_transport
from prfl_jax.clock.types import Arrival, Costs, Dispatch, Failure, Network, Repeat, Window, WindowSettings
from prfl_jax.clock.window_rule import WindowRule

__all__ = [
    "CHECKS",
    "CLOSE_RULES",
    "DISPATCH_RULES",
    "FAILURES",
    "KINDS",
    "TRANSPORTS",
    "Arrival",
    "Clock",
    "CloseCondition",
    "CloseRule",
    "Costs",
    "Dispatch",
    "DispatchRule",
    "Failure",
    "Faults",
    "FaultyClock",
    "Network",
    "OpenWindow",
    "Opening",
    "Repeat",
    "Transport",
    "Window",
    "WindowRule",
    "WindowSettings",
    "after",
    "clock_from_config",
    "fault_files",
    "faults_from_config",
    "faults_on",
    "find_close_rule",
    "find_dispatch_rule",
    "find_transport",
    "in_turn",
    "network_from_config",
    "rule_from_config",
]

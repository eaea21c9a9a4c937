"""Where a run stands."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass
class RunState:
    """Where a run stands, besides what is on the device and in the planner; saved with every checkpoint."""

    window: int = 0
    time_s: float = 0.0
    grid: int = 0  # next point of the evaluation grid
    interval_due: bool = False  # `window` ended an interval that is not decided yet
    updates: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    bytes_client_down: int = 0
    weights: list[float] = dataclasses.field(default_factory=list)  # at the last close
    last_eval: dict[str, Any] | None = None  # of the window it names
    slot_accuracy: dict[str, list[Any]] = dataclasses.field(default_factory=dict)  # client -> [window, accuracy]
    ended: dict[str, Any] | None = None
    total_s: float = 0.0  # host seconds so far

"""`RunState`: where a run stands in simulated time, what it has sent so far, and whether it has ended."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass
class RunState:
    """Where a run stands, besides the device state and the planner; saved with every checkpoint.

    Attributes:
      window, time_s: the last window that closed, and the simulated second at which it did.
      grid: index of the next point of the evaluation grid.
      interval_due: `window` ended an interval, and the decision that follows it has not been made yet.
      masks_due: the server's mask may change after `window`, and has not yet.
      pruned: clients whose own masks arrived with `window`, where it may.
      updates, bytes_up, bytes_down, bytes_client_down: totals of the run so far.
      weights: `[S]` of the slots at the last close; empty before it.
      last_eval: test scores of the newest model that was evaluated, with its window.
      slot_scores: client -> [window, accuracy, loss, score] of the model in its slot on the signal data.
      train_loss: client -> mean training loss of its last arrival since the last density decision, where the density
        policy asks for it.
      ended: how the run ended: `how`, `detail`, `client`; None while it runs.
      total_s: host seconds so far.
    """

    window: int = 0
    time_s: float = 0.0
    grid: int = 0
    interval_due: bool = False
    masks_due: bool = False
    pruned: list[int] = dataclasses.field(default_factory=list)
    updates: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    bytes_client_down: int = 0
    weights: list[float] = dataclasses.field(default_factory=list)
    last_eval: dict[str, Any] | None = None
    slot_scores: dict[str, list[Any]] = dataclasses.field(default_factory=dict)
    train_loss: dict[str, float] = dataclasses.field(default_factory=dict)
    ended: dict[str, Any] | None = None
    total_s: float = 0.0

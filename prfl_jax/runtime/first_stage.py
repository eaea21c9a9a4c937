"""How long a first stage on one client's samples (`SubmodelRule.first_stage`) takes, at most (NumPy only)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from prfl_jax.submodel import ModelSize, find_submodel, pruning_settings
from prfl_jax.transport.mask_costs import held_seconds

CLIENT, BATCHES = 0, 10  # whose samples, and how many batches of them (PruneFL's IP_DATA_BATCH)


@dataclasses.dataclass(frozen=True)
class FirstStage:
    """The longest that a first stage can be.

    Attributes:
      rounds: of `BATCHES` steps, at most; 0: there is no such stage.
      round_s: simulated s of each, under a full mask, which takes longest.
    """

    rounds: int
    round_s: float

    @property
    def seconds(self) -> float:
        """Simulated s that pass before window 1, at most."""
        return self.rounds * self.round_s

    @property
    def text(self) -> str:
        """Its length in words."""
        return f"at most {self.rounds:,} rounds, {self.seconds:,.0f} simulated s, before window 1"

    def rounds_until(self, horizon_s: float | None) -> int:
        """Rounds that are begun until a horizon, at most."""
        if horizon_s is None or horizon_s >= self.seconds:
            return self.rounds
        return min(self.rounds, math.floor(horizon_s / self.round_s) + 1)


def first_stage(config: Any, size: ModelSize) -> FirstStage:
    """The first stage of a config, before anything of it is known."""
    rounds = find_submodel(config.submodel).first_rounds(pruning_settings(config))
    return FirstStage(rounds, round_seconds(config, size, np.array(size.layers)) if rounds else 0.0)


def round_seconds(config: Any, size: ModelSize, held: np.ndarray) -> float:
    """Simulated s of a round of the stage in which the mask holds `held` `[L]` weights of each layer."""
    everybody = np.tile(held, (config.clients.number, 1))
    return float(held_seconds(config, size, everybody, BATCHES)[CLIENT])

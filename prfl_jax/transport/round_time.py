"""`RoundTime`: what each held weight adds to the seconds of a round, by which PruneFL judges it (NumPy only).

A round takes c + sum over layers of t_l x (weights held). t_l has the transfer of a value down and up, the layer's FLOP
(`clients.flop_s`) and `clients.weight_s`. A window waits for all its clients, so the client counts that takes longest
with the whole model. Links are taken as if the client had them for itself, at their mean speed.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from prfl_jax.clock.settings import in_turn
from prfl_jax.submodel.size import ModelSize
from prfl_jax.transport.mask_costs import held_seconds


@dataclasses.dataclass(frozen=True)
class RoundTime:
    """Seconds of a round.

    Attributes:
      layer_s: float64 `[L]`, of each prunable leaf: s that one held weight adds, above 0.
      constant_s: s of a round without any of them.
    """

    layer_s: np.ndarray
    constant_s: float


def round_time(config: Any, size: ModelSize) -> RoundTime:
    """Of the slowest client of a config; args as for `held_seconds`."""
    clients, layers = config.clients, np.asarray(size.layers, np.float64)
    up, down = (np.asarray(in_turn(mb_s, clients.number)) for mb_s in (clients.up_mb_s, clients.down_mb_s))
    value_s = size.bytes_per_value / 1e6 * (1.0 / up + 1.0 / down)  # `[M]` of a value, down and up

    def computing(held: np.ndarray) -> np.ndarray:
        return held_seconds(config, size, np.tile(held, (clients.number, 1)))

    none = computing(0.0 * layers)
    own = np.stack([computing(one) for one in np.diag(layers)]) - none  # `[L, M]` of all weights of a layer
    slowest = int(np.argmax(none + own.sum(0) + size.total * value_s))
    constant_s = none[slowest] + size.fixed * value_s[slowest]
    return RoundTime(own[:, slowest] / layers + value_s[slowest], float(constant_s))

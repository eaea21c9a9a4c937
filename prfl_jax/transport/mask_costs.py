"""What rounds cost where server and clients have masks of any size: bytes of kept values and of masks, s of computing.

A mask travels when it has changed, in the cheaper of a bitmap and 4-byte indices (`ModelSize.mask_bytes`'s encodings).
The server's is the same for all clients, so it is the end of what they share, not a stream of each client's own.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from prfl_jax.clock.settings import in_turn
from prfl_jax.clock.types import Costs
from prfl_jax.submodel.size import ModelSize
from prfl_jax.transport.costs import compute_seconds
from prfl_jax.transport.measured import measured_seconds


@dataclasses.dataclass(frozen=True)
class HeldWeights:
    """How many weights masks hold.

    Attributes:
      server: `[L]`, of each prunable leaf, in the server's mask.
      clients: `[M, L]`, in the mask under which each client trains in its next round.
      sent: `[M, L]`, in the mask with which each client's next update arrives.
      sends_mask: `[M]` bool, whether that one is new, so that it is sent too.
      owed: `[M]` bool, whether the client is sent the server's mask, which it does not have yet.
    """

    server: np.ndarray
    clients: np.ndarray
    sent: np.ndarray
    sends_mask: np.ndarray
    owed: np.ndarray


def value_bytes(size: ModelSize, held: np.ndarray) -> np.ndarray:
    """Bytes of the values of masks that hold `held` `[..., L]` weights, with what is never pruned."""
    return np.rint((held.sum(-1) + size.fixed) * size.bytes_per_value).astype(np.int64)


def encoded_bytes(size: ModelSize, held: np.ndarray) -> np.ndarray:
    """Bytes of masks that hold `held` `[..., L]` weights: the cheaper of a bitmap and indices; 0 of a full one."""
    count = held.sum(-1)
    return np.where(count == size.prunable, 0, np.minimum(-(-size.prunable // 8), 4 * count)).astype(np.int64)


def gradient_bytes(size: ModelSize) -> int:
    """Bytes of a number for each value that a client trains, held or not: squared gradients as they are uploaded."""
    return round((size.total - size.state) * size.bytes_per_value)


def mask_costs(size: ModelSize, held: HeldWeights, seconds: np.ndarray) -> Costs:
    """Costs of the next dispatches: all clients are sent the server's kept values, each sends its own.

    Args:
      size: the whole model.
      seconds: `[M]` s of computing of each client's round (`held_seconds`).
    """
    clients = len(held.clients)
    up = value_bytes(size, held.sent) + np.where(held.sends_mask, encoded_bytes(size, held.sent), 0)
    return Costs(
        down_bytes=value_bytes(size, held.server) + np.where(held.owed, encoded_bytes(size, held.server), 0),
        mask_bytes=np.zeros(clients, np.int64),
        up_bytes=up,
        compute_s=seconds,
        group=np.zeros(clients, np.int64),
    )


def held_seconds(config: Any, size: ModelSize, held: np.ndarray, steps: int | None = None) -> np.ndarray:
    """`[M]` s of computing of each client's round: by FLOP (`clients.flop_s`) and as measured (`clients.step_s`).

    Args:
      config: a whole config.
      size: the whole model.
      held: `[M, L]` weights of each prunable leaf that each client trains.
      steps: of a round; None: `local.steps`.
    """
    clients, steps = config.clients, config.local.steps if steps is None else steps
    whole, number = sum(size.layer_flop), len(held)
    share = held / np.asarray(size.layers) @ np.asarray(size.layer_flop) / whole if whole else np.ones(number)
    samples, speeds = steps * float(config.local.batch_size), in_turn(clients.flop_s, number)
    seconds = compute_seconds(size, np.full(number, 100), samples, speeds, share)
    return seconds + measured_seconds(clients, held, steps)

"""What rounds cost where server and clients have masks of any size: bytes of kept values and of masks, s of computing.

A mask travels when it has changed, in the cheaper of a bitmap and 4-byte indices (`ModelSize.mask_bytes`'s encodings).
The server's is the same for all clients, so it is the end of what they share, not a stream of each client's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from prfl_jax.clock.types import Costs
from prfl_jax.submodel.size import ModelSize
from prfl_jax.transport.costs import compute_seconds


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


def mask_costs(size: ModelSize, held: HeldWeights, samples: float, flop_s: Sequence[float]) -> Costs:
    """Costs of the next dispatches: all clients are sent the server's kept values, each sends its own.

    Args:
      size: the whole model.
      samples: that a client trains on in a round.
      flop_s: `[M]` FLOP/s of the clients; () means that computing takes 0 s.
    """
    clients = len(held.clients)
    up = value_bytes(size, held.sent) + np.where(held.sends_mask, encoded_bytes(size, held.sent), 0)
    whole = sum(size.layer_flop)
    share = held.clients / np.asarray(size.layers) @ np.asarray(size.layer_flop) / whole if whole else np.ones(clients)
    return Costs(
        down_bytes=value_bytes(size, held.server) + np.where(held.owed, encoded_bytes(size, held.server), 0),
        mask_bytes=np.zeros(clients, np.int64),
        up_bytes=up,
        compute_s=compute_seconds(size, np.full(clients, 100), samples, flop_s, share),
        group=np.zeros(clients, np.int64),
    )

"""Seconds of computing as PruneFL measures them on devices without sparse hardware: a constant and a part by weight.

A local step takes s = `clients.step_s` + sum over kernels of (weights held) x `clients.weight_s` (Jiang et al. 2022,
section IV). It is added to what `clients.flop_s` says, which may be none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prfl_jax.clock.settings import in_turn
from prfl_jax.system.errors import UserError


def measured_seconds(
    clients: Any, held: Sequence[Sequence[float]] | np.ndarray, steps: float | np.ndarray
) -> np.ndarray:
    """`[M]` s of each client's round.

    Args:
      clients: the group `clients` of a config.
      held: `[M, K]` weights of each kernel that each client trains.
      steps: local steps of a round; a number or `[M]`.

    Raises:
      UserError: `clients.weight_s` has another number of entries than the model has kernels.
    """
    held = np.asarray(held, np.float64)
    kernels, each = held.shape[1], tuple(clients.weight_s)
    if len(each) not in (0, 1, kernels):
        raise UserError(
            f"config.clients.weight_s={each}: allowed is (), one number of s for all kernels, or one for each of the "
            f"model's {kernels}, in the order of the leaves"
        )
    seconds = np.asarray(in_turn(clients.step_s, clients.number) or np.zeros(clients.number))
    if each:
        seconds = seconds + held @ np.broadcast_to(np.asarray(each, np.float64), kernels)
    return seconds * steps


def is_measured(clients: Any) -> bool:
    """Whether the group `clients` of a config has such seconds."""
    return bool(clients.step_s or clients.weight_s)

"""What the next rounds of all clients cost under a config, and how many steps each client does."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from prfl_jax.clock import Costs, in_turn
from prfl_jax.density import uploads_squares
from prfl_jax.local import find_local
from prfl_jax.submodel import ModelSize
from prfl_jax.transport.costs import make_costs


def round_costs(config: Any, size: ModelSize, density_pct: np.ndarray, flop_share: np.ndarray | None = None) -> Costs:
    """Bytes, seconds and steps of dispatches at these densities `[M]`.

    Args:
      flop_share: as for `make_costs`.
    """
    local, speeds = config.local, in_turn(config.clients.flop_s, config.clients.number)
    work, rule = find_local(local.name), config.transport.bytes
    beside, squares = work.sends_beside, uploads_squares(config)

    def costs(steps: float | np.ndarray) -> Costs:
        samples = steps * float(local.batch_size)
        return make_costs(size, density_pct, samples, speeds, rule, flop_share, squares, beside)

    of_all = costs(local.steps)
    if not work.own_steps:
        return of_all
    steps = own_steps(of_all.compute_s, local.steps)
    return dataclasses.replace(costs(steps), steps=steps)


def own_steps(seconds: np.ndarray, steps: int) -> np.ndarray:
    """`[M]` steps of each client: as many as fit the time that the median client takes for all, from 1 to all of them.

    Args:
      seconds: `[M]` s that each client takes for all steps.

    Source: FedProx's inexact local work (Li et al. 2020), by the clients' speeds.
    """
    fitting = np.full(len(seconds), float(steps))
    slow = seconds > (median := np.median(seconds))
    # a client that needs exactly k steps' time does k: the quotient may be an ulp below
    fitting[slow] = np.floor(steps * median / seconds[slow] * (1 + 1e-9))
    return np.clip(fitting, 1, steps).astype(np.int64)

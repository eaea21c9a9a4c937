"""What the next rounds of all clients cost under a config: how many steps each does, how many values it sends."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from prfl_jax.clock import Costs, in_turn
from prfl_jax.density import uploads_squares
from prfl_jax.local import find_local
from prfl_jax.submodel import ModelSize
from prfl_jax.transport import find_upload, make_costs, upload_sizes
from prfl_jax.transport.measured import is_measured, measured_seconds


def round_costs(config: Any, size: ModelSize, density_pct: np.ndarray, flop_share: np.ndarray | None = None) -> Costs:
    """Bytes, seconds, steps and uploaded values of dispatches at these densities `[M]`.

    Args:
      flop_share: as for `make_costs`.
    """
    local, speeds = config.local, in_turn(config.clients.flop_s, config.clients.number)
    work, rule = find_local(local.name), config.transport.bytes
    beside, squares = work.sends_beside, uploads_squares(config)

    def costs(steps: float | np.ndarray) -> Costs:
        samples = steps * float(local.batch_size)
        made = make_costs(size, density_pct, samples, speeds, rule, flop_share, squares, beside)
        if not is_measured(config.clients):
            return made
        held = [size.held_kernels(percent) for percent in np.asarray(density_pct).tolist()]
        seconds = made.compute_s + measured_seconds(config.clients, held, steps)
        return dataclasses.replace(made, compute_s=seconds)

    made = costs(local.steps)
    if work.own_steps:
        steps = own_steps(made.compute_s, local.steps)
        made = dataclasses.replace(costs(steps), steps=steps)
    upload = find_upload(config.transport.upload)
    if not upload.compresses:
        return made
    mb_s = in_turn(config.clients.up_mb_s, config.clients.number)
    return upload.charge(made, upload_sizes(size, np.asarray(density_pct), mb_s, rule))


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

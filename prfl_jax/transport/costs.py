"""What a dispatch costs: bytes of a sub-model and of its mask, seconds of local training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from prfl_jax.clock.types import Costs
from prfl_jax.submodel.size import ModelSize
from prfl_jax.system.errors import UserError
from prfl_jax.transport.byte_rules import find_byte_rule
from prfl_jax.transport.uploads import UploadSizes

_PASSES = 3.0  # forward, and twice as much backward


def make_costs(
    size: ModelSize,
    density_pct: np.ndarray,
    samples_per_round: float | np.ndarray,
    flop_s: Sequence[float] = (),
    byte_rule: str = "counted",
    flop_share: np.ndarray | None = None,
    squares_up: bool = False,
    beside: bool = False,
) -> Costs:
    """Costs of every client's next dispatches (facts.md, section 1).

    Args:
      size: the whole model.
      density_pct: [M] densities, whole percents.
      samples_per_round: samples one client trains on in a round; a number or [M].
      flop_s: [M] FLOP/s of the clients; () means that computing takes 0 s.
      byte_rule: name of `transport.bytes`.
      flop_share: [M] share of the prunable leaves' forward FLOP that each sub-model has; None: what `size` says.
      squares_up: the client also uploads a squared gradient for each weight it holds.
      beside: as many values as the sub-model has to train are sent beside it, both ways (SCAFFOLD's control variates).

    Raises:
      UserError: an unknown rule, a speed that is not positive.
      ValueError: `flop_s` without `size.layer_flop`, or arrays of another length.
    """
    rule = find_byte_rule(byte_rule)
    density_pct = np.asarray(density_pct, dtype=np.int64)
    down, up, mask = (_by_client(of, size, density_pct) for of in (rule.down, rule.up, rule.mask))
    if beside:
        trained = up - _by_client(_state_bytes, size, density_pct)
        down, up = down + trained, up + trained
    seconds = compute_seconds(size, density_pct, samples_per_round, flop_s, flop_share)
    if squares_up:
        up += _by_client(lambda size, percent: round(size.count(percent) * size.bytes_per_value), size, density_pct)
    return Costs(down_bytes=down, mask_bytes=mask, up_bytes=up, compute_s=seconds, group=density_pct.copy())


def upload_sizes(
    size: ModelSize, density_pct: np.ndarray, mb_s: Sequence[float], byte_rule: str = "counted"
) -> UploadSizes:
    """Sizes of what clients upload, for `Upload.charge`.

    Args:
      size: the whole model.
      density_pct: [M] densities, whole percents.
      mb_s: [M] MB/s that each client sends with.
      byte_rule: name of `transport.bytes`.
    """
    whole = _by_client(find_byte_rule(byte_rule).up, size, density_pct)
    values = _by_client(lambda size, percent: size.count(percent) + size.fixed, size, density_pct)
    state = _by_client(lambda size, percent: size.state_count(percent), size, density_pct)
    return UploadSizes(values - state, whole, size.bytes_per_value, state, np.asarray(mb_s, np.float64))


def _state_bytes(size: ModelSize, percent: int) -> int:
    return round(size.state_count(percent) * size.bytes_per_value)


def _by_client(bytes_of: Callable[[ModelSize, int], int], size: ModelSize, density_pct: np.ndarray) -> np.ndarray:
    """`[M]` bytes, or another whole number, of the density of each client."""
    found = {percent: bytes_of(size, percent) for percent in np.unique(density_pct).tolist()}
    return np.array([found[percent] for percent in density_pct.tolist()], np.int64)


def compute_seconds(
    size: ModelSize,
    density_pct: np.ndarray,
    samples_per_round: float | np.ndarray,
    flop_s: Sequence[float],
    flop_share: np.ndarray | None,
) -> np.ndarray:
    """`[M]` s of computing of each client's round; args as for `make_costs`."""
    if not len(flop_s):
        return np.zeros(len(density_pct))
    speeds = np.asarray(flop_s, dtype=np.float64)
    if speeds.shape != density_pct.shape:
        raise ValueError(f"flop_s has shape {speeds.shape}, density_pct {density_pct.shape}")
    if not (speeds > 0).all():
        raise UserError(f"clients.flop_s: {speeds.min():g} FLOP/s is not positive")
    if len(size.layer_flop) != len(size.layers):
        raise ValueError("clients.flop_s needs the FLOP of each layer (ModelSize.layer_flop)")
    if flop_share is None:
        flop_share = np.array([size.flop_share(percent) for percent in density_pct.tolist()])
    share = np.asarray(flop_share, dtype=np.float64)
    flop = _PASSES * sum(size.layer_flop) * share + _PASSES * size.rest_flop
    return flop * np.asarray(samples_per_round, dtype=np.float64) / speeds

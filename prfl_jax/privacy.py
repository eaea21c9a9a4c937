"""What clients' privacy has cost: client-level (epsilon, delta) of the noise that `checks.py` adds.

Each arrival is one release of the Gaussian mechanism: a client's update, clipped to C, with noise of deviation z C.
A client that arrived k times has released k of them, which compose exactly to one with noise multiplier z / sqrt(k);
everything the server does afterwards is post-processing. Neighbours differ in one client's update counting or being
nothing; drawing cohorts is not claimed to amplify. What is covered: the models that the server makes. What is not: the
training losses in the records of a simulation, and images that the server holds out for early stopping.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prfl_jax.errors import UserError


def check_installed(noise_multiplier: float) -> None:
    """Whether the accountant is there, where it is needed.

    Raises:
      UserError: it is not.
    """
    if noise_multiplier:
        _accounting()


def _accounting() -> Any:
    try:
        import dp_accounting
        from dp_accounting import pld
    except ImportError:
        raise UserError(
            "config.privacy.noise_multiplier: allowed is 0 without dp-accounting; pip install 'prfl_jax[privacy]'"
        ) from None
    return dp_accounting, pld


def spent(noise_multiplier: float, delta: float, releases: int) -> float:
    """epsilon of one client after so many releases, by the privacy loss distribution of dp-accounting."""
    if not releases:
        return 0.0
    accounting, pld = _accounting()
    accountant = pld.PLDAccountant(accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(accounting.GaussianDpEvent(noise_multiplier / releases**0.5))
    return float(accountant.get_epsilon(delta))


def privacy_report(config: Any, updates: Sequence[int]) -> dict[str, Any] | None:
    """The report's `privacy`: the client that released most; None without noise.

    Args:
      updates: arrivals of each client `[M]`.
    """
    noise = config.privacy.noise_multiplier
    if not noise:
        return None
    most = max(updates, default=0)
    return {
        "noise_multiplier": noise,
        "clip_norm": config.aggregation.clip_norm,
        "delta": config.privacy.delta,
        "epsilon": spent(noise, config.privacy.delta, int(most)),
        "releases": int(most),
        "client": list(updates).index(most) if most else None,
    }

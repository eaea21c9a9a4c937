"""Privacy accountant: client-level (epsilon, delta) of the noise that the update filter adds.

Each arrival is one release of the Gaussian mechanism: a client's update, clipped to C, with noise of deviation z C.
A client that arrived k times has released k updates, which compose exactly to one with noise multiplier z / sqrt(k);
everything the server does afterwards is post-processing. Neighbouring data sets differ in whether one client's updates
count or are 0; no amplification by the sampling of cohorts is claimed. Covered: the models that the server makes in one
run. Not covered: what the records of a simulation say of single updates (training losses, which were clipped or
rejected), the end of a run whose training diverges, and a second run on the same data (`compare`, a sweep).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from prfl_jax.system.errors import UserError


def check_installed(noise_multiplier: float) -> None:
    """Checks that the accountant is installed, where there is noise.

    Raises:
      UserError: it is not installed.
    """
    if noise_multiplier:
        _accounting()


def _accounting() -> Any:
    try:
        import dp_accounting
    except ImportError:
        raise UserError(
            "config.privacy.noise_multiplier: allowed is 0 without dp-accounting; pip install 'prfl_jax[privacy]'"
        ) from None
    return dp_accounting


def spent(noise_multiplier: float, delta: float, releases: int) -> float:
    """epsilon of one client after so many releases; infinite where it is beyond the range of a float."""
    if not releases:
        return 0.0
    epsilon = float(_accounting().get_epsilon_gaussian(noise_multiplier / releases**0.5, delta))
    return math.inf if math.isnan(epsilon) else epsilon


def privacy_report(config: Any, updates: Sequence[int]) -> dict[str, Any] | None:
    """The report's group `privacy`, for the client that released most; None without noise.

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

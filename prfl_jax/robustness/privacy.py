"""What clients' privacy has cost: client-level (epsilon, delta) of the noise that `checks.py` adds.

Each arrival is one release of the Gaussian mechanism: a client's update, clipped to C, with noise of deviation z C.
A client that arrived k times has released k of them, which compose exactly to one with noise multiplier z / sqrt(k);
everything the server does afterwards is post-processing. Neighbours differ in one client's update counting or being
nothing; drawing cohorts is not claimed to amplify. What is covered: the models that the server makes in one run. What
is not: what the records of a simulation tell of single updates (training losses, whose were clipped or rejected), the
end of a run whose training diverges, and a second run on the same data (`compare`, a sweep).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from prfl_jax.system.errors import UserError


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
    except ImportError:
        raise UserError(
            "config.privacy.noise_multiplier: allowed is 0 without dp-accounting; pip install 'prfl_jax[privacy]'"
        ) from None
    return dp_accounting


def spent(noise_multiplier: float, delta: float, releases: int) -> float:
    """epsilon of one client after so many releases; infinite where it is no number any more."""
    if not releases:
        return 0.0
    epsilon = float(_accounting().get_epsilon_gaussian(noise_multiplier / releases**0.5, delta))
    return math.inf if math.isnan(epsilon) else epsilon


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

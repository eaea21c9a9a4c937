"""Which `ClientState` a run has: that of the local work, or the moments of an optimiser that clients keep."""

from __future__ import annotations

from typing import Any

from prfl_jax.local.work import ClientState, LocalSettings, LocalTask, LocalWork


def _first_moments(task: LocalTask, params: Any) -> Any:
    from prfl_jax.local.sgd import first_moments

    return first_moments(task, params)


# the state of the local optimiser, which `sgd_round` begins with and returns
MOMENTS = ClientState(init=_first_moments)


def find_client_state(work: LocalWork, settings: LocalSettings) -> ClientState | None:
    """What clients keep between their rounds; None: nothing."""
    return MOMENTS if settings.keeps_moments else work.client_state

"""The built-in density policies: full, time balance (PR-FL), recovery (PR-FL), tiers (HeteroFL)."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from prfl_jax.density.base import DensityPolicy
from prfl_jax.density.early_stopping import EarlyStopping
from prfl_jax.system.errors import UserError
from prfl_jax.system.notices import deprecated_once


class FullDensity(DensityPolicy):
    """Density 1 for every client in every window: no decisions, nothing measured on held-out data."""

    stays_full = True

    def __init_subclass__(cls, **arguments: Any) -> None:
        if FullDensity in cls.__bases__ and "stays_full" not in cls.__dict__:  # a plugin of version 0.1
            deprecated_once(f"{cls.__name__}: the base class of density policies is now DensityPolicy, not FullDensity")
        super().__init_subclass__(**arguments)


class BalancedDensity(DensityPolicy):
    """Time balance without recovery (the paper's noRecover row): Eq. 2-4 with one fixed minimum.

    Raises:
      UserError: a minimum density outside (0, 1].
    """

    def __init__(self, config: Any, num_clients: int) -> None:
        super().__init__(config, num_clients)
        if not 0.0 < config.min_density <= 1.0:
            raise UserError(f"density.min_density: {config.min_density} is not in (0, 1]")
        self.min_densities = np.full(num_clients, float(config.min_density))

    def balance(self, present: np.ndarray) -> np.ndarray:
        """Eq. 4, from the `present` densities `[M]`."""
        return self.times.densities(present, self.min_densities)


class TieredDensity(DensityPolicy):
    """HeteroFL's fixed tiers: after the first window each client gets the largest rate not above min_j t_j / t_i.

    A client that is slower than the smallest rate allows gets the smallest rate; t_i is its round time at density 1.
    A client without a round time yet (its rounds failed) stays at density 1. It gets its tier with the first decision
    after its first arrival, relative to the fastest mean time at that moment.

    Raises:
      UserError: no tier, or one outside (0, 1].
    """

    needs_first_times = True
    in_cohorts = False
    uses_tiers = True

    def __init__(self, config: Any, num_clients: int) -> None:
        super().__init__(config, num_clients)
        if not config.tiers or not all(0.0 < tier <= 1.0 for tier in config.tiers):
            raise UserError(f"density.tiers: {tuple(config.tiers)} are not densities in (0, 1]")
        self._tiers = sorted((float(tier) for tier in config.tiers), reverse=True)
        self._given = np.zeros(num_clients, dtype=bool)

    def decides_after(self, window: int) -> bool:
        """As the base class, and after the first window, whose round times give the tiers."""
        return window == 1 or super().decides_after(window)

    def balance(self, present: np.ndarray) -> np.ndarray:
        """The clients' tiers, which later decisions only change where recovery raises a minimum.

        Each client gets its tier once, at the first decision that knows its round time. The `present` densities `[M]`
        do not matter.
        """
        times = self.times.mean_times()
        known = ~np.isnan(times)
        new = known & ~self._given
        if new.any():
            fastest = times[known].min()
            shares = np.divide(fastest, times, out=np.ones_like(times), where=times > fastest)
            own = [next((tier for tier in self._tiers if tier <= share + 1e-9), self._tiers[-1]) for share in shares]
            self.min_densities[new] = np.array(own)[new]
            self._given |= new
        return self.min_densities

    def to_state(self) -> dict[str, Any]:
        """As the base class, with the clients that have their tier."""
        return {**super().to_state(), "given": self._given.tolist()}

    def from_state(self, state: dict[str, Any]) -> Self:
        """Restores a saved state; returns itself."""
        super().from_state(state)
        self._given[:] = state["given"]
        return self


class Recovery(DensityPolicy):
    """PR-FL's recovery (Eq. 5) and stop rule (Algorithm 1, lines 7-19), on top of a policy that respects rho_min_i.

    rho_min_i rises by delta_rho where the score of client i (accuracy in the paper) stops improving. The stop rule
    holds when all densities are 1 and the server's score stops improving; it is marked in the records, and ends the run
    if `stop_early` is set. To be mixed in: `class RecoveringDensity(Recovery, BalancedDensity)`.

    Raises:
      UserError: a delta_rho outside (0, 1].
    """

    needs = frozenset({"client_score", "server_score"})
    in_cohorts = False

    def __init__(self, config: Any, num_clients: int) -> None:
        super().__init__(config, num_clients)
        if not 0.0 < config.delta_rho <= 1.0:
            raise UserError(f"density.delta_rho: {config.delta_rho} is not in (0, 1]")
        self._delta_rho = float(config.delta_rho)
        self._clients = [EarlyStopping(config.patience, config.min_delta) for _ in range(num_clients)]
        self.stop_with_server()

    def recover(self, client_scores: np.ndarray | None) -> np.ndarray:
        """Lines 7-14 with `client_scores` `[M]` of the models in the clients' slots: `[M]` bool, who recovers."""
        triggered = super().recover(client_scores)
        if client_scores is None:
            return triggered
        for client, score in enumerate(client_scores):
            if self._clients[client].update(float(score)) and self._density_pct[client] < 100:
                triggered[client] = True
                self.min_densities[client] = min(self._density_pct[client] / 100.0 + self._delta_rho, 1.0)
        return triggered

    def may_stop(self) -> bool:
        """Lines 17-19: the run may end once every client is back at density 1."""
        return bool((self._density_pct == 100).all())

    def to_state(self) -> dict[str, Any]:
        """As the base class, with the early stopping of each client."""
        return {**super().to_state(), "clients": [stopping.to_state() for stopping in self._clients]}

    def from_state(self, state: dict[str, Any]) -> Self:
        """Restores a saved state; returns itself."""
        super().from_state(state)
        for stopping, saved in zip(self._clients, state["clients"], strict=True):
            stopping.from_state(saved)
        return self


class RecoveringDensity(Recovery, BalancedDensity):
    """PR-FL: time balance, then recovery."""


class RecoveringTiers(Recovery, TieredDensity):
    """HeteroFL's tiers, then recovery (not in either paper; the 2026 follow-up to PR-FL found it to help)."""

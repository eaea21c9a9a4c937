"""Who trains which density, decided after windows I, 2I, ... (Algorithm 1, lines 6-22).

A policy of one's own is a subclass of `FullDensity` that overrides `balance` (`docs/own_density.md`).
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from prfl_jax import registry
from prfl_jax.clock.types import Arrival
from prfl_jax.density.early_stopping import EarlyStopping
from prfl_jax.density.time_balance import TimeBalance
from prfl_jax.submodel.size import to_percent
from prfl_jax.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class Decision:
    """What one decision changed.

    Attributes:
      density_pct: [M] densities of the dispatches from now on, whole percents.
      min_densities: [M] rho_min_i in (0, 1].
      mean_times: [M] tbar_i of Eq. 3 in s, NaN where nothing has arrived (normalised if the rule is).
      triggered: [M] bool, clients below density 1 whose early stopping fired: their rho_min_i rose.
      stop: all densities were 1 and the server's early stopping fired (lines 17-19).
    """

    density_pct: np.ndarray
    min_densities: np.ndarray
    mean_times: np.ndarray
    triggered: np.ndarray
    stop: bool


class FullDensity:
    """Density 1 for everybody, and the server's stop rule: what all policies are made from.

    Args:
      config: the group `density` of a config.
      num_clients: M.

    Attributes:
      recovers: of the class: whether it looks at the accuracy of the clients' models.
      needs_first_times: of the class: whether its first decision needs a round time of every client.
      in_cohorts: of the class: whether it can do with the arrivals of a cohort (`window.cohort`).
      times: the last I round times of each client, s.
      min_densities: `[M]` rho_min_i in (0, 1].
    """

    recovers = False
    needs_first_times = False
    in_cohorts = True

    def __init__(self, config: Any, num_clients: int) -> None:
        self.times = TimeBalance(config.rule, num_clients, config.interval)
        self.min_densities = np.ones(num_clients)
        self._density_pct = np.full(num_clients, 100, dtype=np.int64)
        self._interval = int(config.interval)
        self._server = EarlyStopping(config.patience, config.min_delta)

    @property
    def density_pct(self) -> np.ndarray:
        """[M] densities of new dispatches, whole percents; all 100 until the first decision."""
        return self._density_pct.copy()

    @property
    def percents(self) -> np.ndarray:
        """`density_pct` by its name of version 0.1."""
        warnings.warn("DensityPolicy.percents is now density_pct", DeprecationWarning, stacklevel=2)
        return self.density_pct

    def observe(self, arrivals: Sequence[Arrival], density_pct: Sequence[int] | np.ndarray) -> None:
        """Takes the arrivals of a window, in order, with `density_pct`, one for each arrival."""
        for arrival, percent in zip(arrivals, density_pct, strict=True):
            self.times.add(arrival.client, arrival.round_s, int(percent))

    def decides_after(self, window: int) -> bool:
        """Whether `decide` follows window n: after I, 2I, ... (Algorithm 1, line 6)."""
        return window % self._interval == 0

    def decide(self, client_accuracy: np.ndarray | None, server_accuracy: float | None) -> Decision:
        """Decides the densities until the next decision.

        Args:
          client_accuracy: [M], of the model in each client's slot; NaN where the slot is empty.
          server_accuracy: of FedAvg(B), the model of Algorithm 1 line 16. None (either): nothing was evaluated.

        Raises:
          UserError: `balance` gave what are no densities.
        """
        triggered = self.recover(client_accuracy)
        whole = bool((self._density_pct == 100).all())
        fired = server_accuracy is not None and self._server.update(server_accuracy)
        self._density_pct = self._snapped(self.balance(self._density_pct / 100.0))
        return Decision(
            self.density_pct, self.min_densities.copy(), self.times.mean_times(), triggered, stop=whole and fired
        )

    def recover(self, client_accuracy: np.ndarray | None) -> np.ndarray:
        """Lines 7-14: `[M]` bool, whose rho_min_i rose; nothing to recover here.

        Args:
          client_accuracy: as in `decide`; None where the policy does not ask for it (`recovers`).
        """
        return np.zeros(len(self._density_pct), dtype=bool)

    def balance(self, present: np.ndarray) -> np.ndarray:
        """Line 22: the densities until the next decision, from `present` ones and whatever was observed.

        Args:
          present: `[M]` densities of the dispatches so far, in (0, 1].

        Returns:
          `[M]` densities in (0, 1], to be snapped to whole percents; here the present ones.
        """
        return present

    def _snapped(self, wanted: np.ndarray) -> np.ndarray:
        """Whole percents of what `balance` returned."""
        found = np.asarray(wanted)
        if found.shape != self._density_pct.shape or not np.all((found > 0) & (found <= 1)):
            raise UserError(
                f"density.name: {type(self).__name__}.balance gave {' '.join(repr(wanted).split())[:80]}; "
                f"allowed: {len(self._density_pct)} densities in (0, 1]"
            )
        return np.array([to_percent(float(density)) for density in found], dtype=np.int64)

    def to_state(self) -> dict[str, Any]:
        """Everything that changes, as JSON can hold it: a run that goes on begins with it."""
        return {
            "percents": self._density_pct.tolist(),
            "min_densities": self.min_densities.tolist(),
            "times": self.times.to_state(),
            "server": self._server.to_state(),
        }

    def from_state(self, state: dict[str, Any]) -> Self:
        """Takes over a saved state of the same policy; returns itself."""
        self._density_pct = np.array(state["percents"], dtype=np.int64)
        self.min_densities = np.array(state["min_densities"], dtype=np.float64)
        self.times.from_state(state["times"])
        self._server.from_state(state["server"])
        return self


class BalancedDensity(FullDensity):
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


class TieredDensity(FullDensity):
    """HeteroFL's fixed tiers: after the first window each client gets the largest rate not above min_j t_j / t_i.

    Whoever is slower than the smallest rate gets that one; t_i is the client's round time at density 1. A client that
    has none yet, since its rounds failed, stays at density 1 and gets its tier with the first decision after its first
    arrival, beside the fastest mean time by then.

    Raises:
      UserError: no tier, or one outside (0, 1].
    """

    needs_first_times = True
    in_cohorts = False

    def __init__(self, config: Any, num_clients: int) -> None:
        super().__init__(config, num_clients)
        if not config.tiers or not all(0.0 < tier <= 1.0 for tier in config.tiers):
            raise UserError(f"density.tiers: {tuple(config.tiers)} are not densities in (0, 1]")
        self._tiers = sorted((float(tier) for tier in config.tiers), reverse=True)
        self._given = np.zeros(num_clients, dtype=bool)

    def decides_after(self, window: int) -> bool:
        """After the first window too, which gives the tiers."""
        return window == 1 or super().decides_after(window)

    def balance(self, present: np.ndarray) -> np.ndarray:
        """The tiers, given to each client once, at the first decision that knows its round time; then the minima.

        They do not depend on the `present` densities `[M]`.
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
        """And who has been given a tier."""
        return {**super().to_state(), "given": self._given.tolist()}

    def from_state(self, state: dict[str, Any]) -> Self:
        """Takes over a saved state; returns itself."""
        super().from_state(state)
        self._given[:] = state["given"]
        return self


class Recovery(FullDensity):
    """Recovery by delta_rho where a client stops improving (Eq. 5), on top of any rule that respects rho_min_i.

    To be mixed in: `class RecoveringDensity(Recovery, BalancedDensity)`.

    Raises:
      UserError: a delta_rho outside (0, 1].
    """

    recovers = True
    in_cohorts = False

    def __init__(self, config: Any, num_clients: int) -> None:
        super().__init__(config, num_clients)
        if not 0.0 < config.delta_rho <= 1.0:
            raise UserError(f"density.delta_rho: {config.delta_rho} is not in (0, 1]")
        self._delta_rho = float(config.delta_rho)
        self._clients = [EarlyStopping(config.patience, config.min_delta) for _ in range(num_clients)]

    def recover(self, client_accuracy: np.ndarray | None) -> np.ndarray:
        """Lines 7-14 with `client_accuracy` `[M]` of the models in the clients' slots: `[M]` bool, who recovers."""
        triggered = super().recover(client_accuracy)
        if client_accuracy is None:
            return triggered
        for client, accuracy in enumerate(client_accuracy):
            if self._clients[client].update(float(accuracy)) and self._density_pct[client] < 100:
                triggered[client] = True
                self.min_densities[client] = min(self._density_pct[client] / 100.0 + self._delta_rho, 1.0)
        return triggered

    def to_state(self) -> dict[str, Any]:
        """And the early stopping of each client."""
        return {**super().to_state(), "clients": [stopping.to_state() for stopping in self._clients]}

    def from_state(self, state: dict[str, Any]) -> Self:
        """Takes over a saved state; returns itself."""
        super().from_state(state)
        for stopping, saved in zip(self._clients, state["clients"], strict=True):
            stopping.from_state(saved)
        return self


class RecoveringDensity(Recovery, BalancedDensity):
    """PR-FL: time balance, then recovery."""


class RecoveringTiers(Recovery, TieredDensity):
    """HeteroFL's tiers, then recovery (not in either paper; the 2026 follow-up found it to help)."""


# values of `density.name`
DENSITIES: dict[str, type[FullDensity]] = {
    "full": FullDensity,
    "time_balance": BalancedDensity,
    "recovery": RecoveringDensity,
    "tiers": TieredDensity,
    "tiers_recovery": RecoveringTiers,
}


def find_density(name: str) -> type[FullDensity]:
    """The class that `density.name` names: one of the table, or one of a user's own.

    Raises:
      UserError: an unknown name, or an object that is no subclass of `FullDensity`.
    """
    if name in DENSITIES:
        return DENSITIES[name]
    if not registry.is_own(name):
        raise UserError(f"density.name: {name!r} is not one of {', '.join(DENSITIES)}, or {registry.WORDS}")
    key = "config.density.name"
    found = registry.find_object(name, key)
    if not (isinstance(found, type) and issubclass(found, FullDensity)):
        raise registry.wrong(key, name, found, "a subclass of prfl_jax.density.FullDensity")
    return found


def make_density(config: Any, num_clients: int) -> FullDensity:
    """The policy that the group `density` of a config names, for M clients.

    Raises:
      UserError: an unknown name, or a value that is not allowed.
    """
    return find_density(config.name)(config, num_clients)

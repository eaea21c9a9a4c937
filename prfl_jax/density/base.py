"""The contract of the density seam: `DensityPolicy`, from which every policy is derived, and what it decides."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from prfl_jax.clock.types import Arrival
from prfl_jax.density.early_stopping import EarlyStopping
from prfl_jax.density.evidence import OF_CLIENTS, Evidence
from prfl_jax.density.time_balance import TimeBalance
from prfl_jax.submodel.size import to_percent
from prfl_jax.system.errors import UserError
from prfl_jax.system.notices import deprecated_once


@dataclasses.dataclass(frozen=True)
class Decision:
    """What one decision changed.

    Attributes:
      density_pct: `[M]` densities of the dispatches from now on, whole percents.
      min_densities: `[M]` rho_min_i in (0, 1].
      mean_times: `[M]` tbar_i of Eq. 3 in s, NaN where nothing has arrived (at density 1 if `density.rule` is
        normalised).
      triggered: `[M]` bool, clients below density 1 whose early stopping fired: their rho_min_i rose.
      stop: the policy's stop rule holds; the run ends here if `stop_early` is set.
      rewards: `[M]` what the policy learned from, NaN where a client had none; None where it does not learn.
    """

    density_pct: np.ndarray
    min_densities: np.ndarray
    mean_times: np.ndarray
    triggered: np.ndarray
    stop: bool
    rewards: np.ndarray | None = None

    @property
    def percents(self) -> np.ndarray:
        """`density_pct` by its name of version 0.1."""
        deprecated_once("Decision.percents is now density_pct")
        return self.density_pct


class DensityPolicy:
    """Decides which density each client trains; a subclass overrides `balance` (docs/own_density.md).

    All clients start at density 1. The policy observes the arrivals of every window. After the windows for which
    `decides_after` is true, the runtime measures what `needs` asks for, passes it to `decide`, and prunes.

    Args:
      config: the group `density` of a config.
      num_clients: M.

    Attributes:
      needs: names of the fields of `Evidence` that `decide` uses. Nothing else is measured: a policy that needs
        nothing causes no evaluation on held-out data.
      needs_first_times: of the class: whether the first decision needs a round time of every client.
      in_cohorts: of the class: whether the arrivals of a cohort suffice (`window.cohort`).
      stays_full: of the class: whether every density is 1 for the whole run, so that nothing is decided or pruned. It
        is not inherited: a subclass that keeps every density at 1 declares it again.
      uses_tiers: of the class: whether it reads `density.tiers`.
      draws_ratios: of the class: whether it draws pruning ratios from [0, 1 - `density.min_density`].
      defaults: of the class: what keys of the group `density` are for this policy where a config has None.
      root_seed: seed of the run, for a policy that draws; `make_density` sets it before the first decision.
      recovers: of the class: whether it needs measurements of the clients' models, and so a buffer that keeps them.
        Derived from `needs`.
      times: the last I round times of each client, s.
      min_densities: `[M]` rho_min_i in (0, 1].
    """

    needs: frozenset[str] = frozenset()
    needs_first_times: ClassVar[bool] = False
    in_cohorts: ClassVar[bool] = True
    stays_full: ClassVar[bool] = False
    uses_tiers: ClassVar[bool] = False
    draws_ratios: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = {}
    root_seed: int = 0
    recovers: ClassVar[bool] = False

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls.stays_full = cls.__dict__.get("stays_full", False)
        if cls.__dict__.get("recovers") and not cls.needs & OF_CLIENTS:
            deprecated_once(f"{cls.__name__}.recovers = True is now needs = frozenset({{'client_accuracy'}})")
            cls.needs = cls.needs | {"client_accuracy"}
        cls.recovers = bool(cls.needs & OF_CLIENTS)
        decide = cls.__dict__.get("decide")
        if decide is not None:
            asked = [one for one in inspect.signature(decide).parameters.values() if one.default is one.empty]
            if len(asked) > 2:  # self, and what version 0.1 passed
                raise TypeError(f"{cls.__name__}.decide is given one Evidence, not client_accuracy, server_accuracy")

    def __init__(self, config: Any, num_clients: int) -> None:
        self.times = TimeBalance(config.rule, num_clients, config.interval)
        self.min_densities = np.ones(num_clients)
        self._density_pct = np.full(num_clients, 100, dtype=np.int64)
        self._interval = int(config.interval)
        self._patience = (config.patience, config.min_delta)
        self._server: EarlyStopping | None = None

    def setting(self, config: Any, key: str) -> Any:
        """A key of the group `density` in force: the config's, or where that is None this policy's own."""
        given = getattr(config, key)
        return self.defaults.get(key) if given is None else given

    def stop_with_server(self) -> None:
        """Makes the policy need the server's score and set `Decision.stop` when that stops improving.

        `make_density` calls it if `stop_early` is set. To be called before the first decision.
        """
        if self._server is None:
            self.needs = self.needs | {"server_score"}
            self._server = EarlyStopping(*self._patience)

    @property
    def density_pct(self) -> np.ndarray:
        """`[M]` densities of new dispatches, whole percents; all 100 until the first decision."""
        return self._density_pct.copy()

    @property
    def percents(self) -> np.ndarray:
        """`density_pct` by its name of version 0.1."""
        deprecated_once("DensityPolicy.percents is now density_pct")
        return self.density_pct

    def observe(self, arrivals: Sequence[Arrival], density_pct: Sequence[int] | np.ndarray) -> None:
        """Records the round times of a window's arrivals.

        Args:
          arrivals: of one window, in order.
          density_pct: the percent that each of them was trained at.
        """
        for arrival, percent in zip(arrivals, density_pct, strict=True):
            self.times.add(arrival.client, arrival.round_s, int(percent))

    def decides_after(self, window: int) -> bool:
        """Whether a decision follows window n: after I, 2I, ... (Algorithm 1, line 6)."""
        return (not self.stays_full or self._server is not None) and window % self._interval == 0

    def decide(self, evidence: Evidence | np.ndarray | None = None, server_accuracy: float | None = None) -> Decision:
        """Decides the densities until the next decision.

        Args:
          evidence: what was measured. Version 0.1 passed `client_accuracy` here and `server_accuracy` beside it.

        Raises:
          UserError: `balance` returned something else than densities.
        """
        if not isinstance(evidence, Evidence):
            if evidence is not None or server_accuracy is not None:
                deprecated_once("DensityPolicy.decide takes client_accuracy and server_accuracy in an Evidence")
            evidence = Evidence(client_accuracy=evidence, server_accuracy=server_accuracy)
        self.consider(evidence)
        triggered = self.recover(evidence.of_clients)
        stop = self._server_stopped(evidence.of_server) and self.may_stop()
        self._density_pct = self._snapped(self.balance(self._density_pct / 100.0))
        return Decision(
            self.density_pct, self.min_densities.copy(), self.times.mean_times(), triggered, stop, self.rewards()
        )

    def consider(self, evidence: Evidence) -> None:
        """Reads the evidence before `recover` and `balance`; the base class does nothing here."""

    def rewards(self) -> np.ndarray | None:
        """`[M]` rewards for the records, NaN where a client had none; None in the base class, which does not learn."""
        return None

    def recover(self, client_scores: np.ndarray | None) -> np.ndarray:
        """Algorithm 1, lines 7-14: raises rho_min_i where a client stops improving; the base class raises none.

        Args:
          client_scores: `[M]` as `Evidence.of_clients`: higher is better; None where the policy does not ask for them.

        Returns:
          `[M]` bool, whose rho_min_i rose.
        """
        return np.zeros(len(self._density_pct), dtype=bool)

    def may_stop(self) -> bool:
        """Whether the run may end now if the server's score has stopped improving."""
        return True

    def balance(self, present: np.ndarray) -> np.ndarray:
        """Algorithm 1, line 22: the densities until the next decision; the base class keeps the present ones.

        Args:
          present: `[M]` densities of the dispatches so far, in (0, 1].

        Returns:
          `[M]` densities in (0, 1], which are then rounded to whole percents.
        """
        return present

    def _server_stopped(self, score: float | None) -> bool:
        """Whether the server's early stopping fires at this evaluation."""
        return self._server is not None and score is not None and self._server.update(score)

    def _snapped(self, wanted: np.ndarray) -> np.ndarray:
        """Whole percents of what `balance` returned."""
        found = np.asarray(wanted)
        if found.shape != self._density_pct.shape or not np.all((found > 0) & (found <= 1)):
            raise UserError(
                f"density.name: {type(self).__name__}.balance gave {' '.join(repr(wanted).split())[:80]}; "
                f"allowed: {len(self._density_pct)} densities in (0, 1]"
            )
        density_pct = np.array([to_percent(float(density)) for density in found], dtype=np.int64)
        if self.stays_full and (density_pct < 100).any():
            allowed = "1 for every client, because its class has stays_full = True"
            raise UserError(f"density.name: {type(self).__name__}.balance gave {found.min():g}; allowed: {allowed}")
        return density_pct

    def to_state(self) -> dict[str, Any]:
        """Everything that changes during a run, as JSON can hold it; `from_state` of a new policy takes it."""
        return {
            "percents": self._density_pct.tolist(),
            "min_densities": self.min_densities.tolist(),
            "times": self.times.to_state(),
            "server": None if self._server is None else self._server.to_state(),
        }

    def from_state(self, state: dict[str, Any]) -> Self:
        """Restores a saved state of the same policy; returns itself."""
        self._density_pct = np.array(state["percents"], dtype=np.int64)
        self.min_densities = np.array(state["min_densities"], dtype=np.float64)
        self.times.from_state(state["times"])
        if self._server is not None:
            self._server.from_state(state["server"])
        return self

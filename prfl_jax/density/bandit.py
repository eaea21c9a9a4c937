"""FedMP's density policies: E-UCB agents that learn pruning ratios from round times and training losses alone.

Jiang et al., ICDE 2022, Algorithm 1 and section IV-D; where the paper leaves room, `rewards.py` and `docs/methods.md`
give the reading. A pruning ratio is 1 - density. The aim is a short sum of round times (Eq. 7); how near agents come to
the best ratios, the regret of Eq. 12, is measured on a toy in `tests/density/test_bandit.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from prfl_jax.clock.types import Arrival
from prfl_jax.density.base import DensityPolicy
from prfl_jax.density.eucb import SCALES, Agent, Settings
from prfl_jax.density.evidence import Evidence
from prfl_jax.density.rewards import LOSS_CHANGES, Outcome, TrainingLosses, by_time, literal, normalised
from prfl_jax.system.errors import UserError


class BanditDensity(DensityPolicy):
    """FedMP with one agent for each worker, and settings under which it learns within a few hundred rounds.

    A worker's first round is at density 1 and has no reward, since there is no loss before it. From then on its agent
    draws a ratio whenever the worker has arrived, after every window with arrivals (`density.interval` is not read).
    The workers in flight keep theirs (Algorithm 2, lines 9-10).

    Attributes:
      settings: of the agents.
      losses: each client's last training loss.

    Raises:
      UserError: a setting that is not allowed.
    """

    needs = frozenset({"train_loss"})
    defaults: ClassVar[Mapping[str, Any]] = {
        "theta": 0.1, "discount": 0.998, "exploration": 0.4, "reward_scale": "mean", "loss_change": "global",
    }  # fmt: skip
    draws_ratios = True

    def __init__(self, config: Any, num_clients: int) -> None:
        super().__init__(config, num_clients)
        self.settings = _settings({key: self.setting(config, key) for key in self.defaults})
        if not 0.0 < config.min_density < 1.0:
            raise UserError(
                f"density.min_density: {config.min_density} is not in (0, 1), which leaves no ratio to choose"
            )
        if not config.gap_floor > 0.0:
            raise UserError(f"density.gap_floor: {config.gap_floor} is not a number > 0")
        self.min_densities = np.full(num_clients, float(config.min_density))
        self._highest = 100 - round(100 * config.min_density)
        self._floor = float(config.gap_floor)
        self.losses = TrainingLosses(LOSS_CHANGES.find(self.setting(config, "loss_change")), num_clients)
        self._agents: dict[int, Agent] = {}  # by number; made when a worker first arrives
        self._arrived: dict[int, tuple[float, int]] = {}  # client -> (round time in s, percent), until the decision
        self._last_s = np.full(num_clients, np.nan)
        self._rewards = np.full(num_clients, np.nan)

    def observe(self, arrivals: Sequence[Arrival], density_pct: Sequence[int] | np.ndarray) -> None:
        """As the base class, with the percents `density_pct`; of several arrivals of a client the last one counts."""
        super().observe(arrivals, density_pct)
        for arrival, percent in zip(arrivals, density_pct, strict=True):
            self._arrived[arrival.client] = (arrival.round_s, int(percent))
            self._last_s[arrival.client] = arrival.round_s

    def decides_after(self, window: int) -> bool:
        """After every window in which a client has arrived."""
        return bool(self._arrived)

    def consider(self, evidence: Evidence) -> None:
        """Lines 11-12: tells the agents their rewards."""
        self._rewards = np.full(len(self._rewards), np.nan)
        pairs = self.losses.add(evidence.train_loss, self._arrived)
        for number, clients, ratio, outcome in self._outcomes(pairs):
            reward = float(self.reward(outcome))
            self._agent(number).observe(ratio, reward)
            self._rewards[clients] = reward

    def reward(self, outcome: Outcome) -> float:
        """The reward of a client's round: `normalised`."""
        return normalised(outcome, self._floor)

    def _outcomes(self, pairs: dict[int, tuple[float, float]]) -> Iterator[tuple[int, list[int], int, Outcome]]:
        """The rounds that are rewarded: number of the agent, its clients, ratio in percent, outcome."""
        mean_s = float(np.nanmean(self._last_s)) if pairs else 0.0
        for client in sorted(pairs):
            (before, now), (round_s, percent) = pairs[client], self._arrived[client]
            yield client, [client], 100 - percent, Outcome(before - now, before, round_s, mean_s)

    def balance(self, present: np.ndarray) -> np.ndarray:
        """Lines 3-10: new densities of the clients that have arrived; the others keep their `present` ones `[M]`."""
        densities = present.copy()
        for client in sorted(self._arrived):
            densities[client] = 1.0 - self._agent(client).draw() / 100
        self._arrived.clear()
        return densities

    def rewards(self) -> np.ndarray:
        """`[M]` rewards that the last decision was made with; NaN where a client had none."""
        return self._rewards.copy()

    def _agent(self, number: int) -> Agent:
        if number not in self._agents:
            self._agents[number] = Agent(self.root_seed, number, self.settings, self._highest)
        return self._agents[number]

    def to_state(self) -> dict[str, Any]:
        """As the base class, with the agents and what is known of the clients' last rounds."""
        return {
            **super().to_state(),
            "agents": [[number, agent.to_state()] for number, agent in sorted(self._agents.items())],
            "arrived": [[client, *seen] for client, seen in sorted(self._arrived.items())],
            "last_loss": _without_nan(self.losses.last),
            "last_s": _without_nan(self._last_s),
        }

    def from_state(self, state: dict[str, Any]) -> Self:
        """Restores a saved state; returns itself."""
        super().from_state(state)
        self._agents.clear()
        for number, saved in state["agents"]:
            self._agent(number).from_state(saved)
        self._arrived = {client: (round_s, percent) for client, round_s, percent in state["arrived"]}
        self.losses.last = np.array(state["last_loss"], dtype=np.float64)
        self._last_s = np.array(state["last_s"], dtype=np.float64)
        return self


class LiteralBandit(BanditDensity):
    """FedMP as printed: Eq. 8 in 1/s, lambda .95, factor 1. On the toy of its test it learns nothing."""

    defaults: ClassVar[Mapping[str, Any]] = {
        "theta": 0.05, "discount": 0.95, "exploration": 1.0, "reward_scale": "unscaled", "loss_change": "own",
    }  # fmt: skip

    def reward(self, outcome: Outcome) -> float:
        """Eq. 8, `literal`."""
        return literal(outcome, self._floor)


class UniformBandit(BanditDensity):
    """UP-FL: one agent, and one ratio for all clients (FedMP, section V-A).

    In windows that do not wait for all clients, an arrival that was dispatched under an earlier ratio counts for that
    one, with the others of the same ratio. Where the clock runs alone no loss speaks against a large ratio, and the
    agent goes to the largest.
    """

    defaults: ClassVar[Mapping[str, Any]] = {**BanditDensity.defaults, "loss_change": "own"}

    def reward(self, outcome: Outcome) -> float:
        """`by_time`: the gap to the mean would always be 0."""
        return by_time(outcome)

    def _outcomes(self, pairs: dict[int, tuple[float, float]]) -> Iterator[tuple[int, list[int], int, Outcome]]:
        """As the base class: mean losses of all clients that were trained at one ratio, and the slowest one's time."""
        ratios: dict[int, list[int]] = {}
        for client in sorted(pairs):
            ratios.setdefault(100 - self._arrived[client][1], []).append(client)
        for ratio, clients in sorted(ratios.items()):
            before, now = np.mean([pairs[client] for client in clients], axis=0).tolist()
            slowest_s = max(self._arrived[client][0] for client in clients)
            yield 0, clients, ratio, Outcome(before - now, before, slowest_s, slowest_s)

    def balance(self, present: np.ndarray) -> np.ndarray:
        """The one density of all dispatches from now on; `present` `[M]` counts in its length alone."""
        if not self._arrived:
            return present
        self._arrived.clear()
        return np.full(len(present), 1.0 - self._agent(0).draw() / 100)


def _settings(given: Mapping[str, Any]) -> Settings:
    """The settings of the agents.

    Raises:
      UserError: one that is not allowed.
    """
    theta, discount, exploration = (float(given[key]) for key in ("theta", "discount", "exploration"))
    if not 0.0 < theta < 1.0:
        raise UserError(f"density.theta: {theta} is not in (0, 1)")
    if not 0.0 < discount <= 1.0:
        raise UserError(f"density.discount: {discount} is not in (0, 1]")
    if not exploration >= 0.0:
        raise UserError(f"density.exploration: {exploration} is not a number >= 0")
    return Settings(theta, discount, exploration, SCALES.find(given["reward_scale"]))


def _without_nan(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else value for value in values.tolist()]

"""A stationary toy of ten workers, fast and slow, on which a choice of pruning ratios is judged without training.

A worker's round takes [comp (1-a)^2 + comm (1-a)] s times a log-normal factor of deviation .1 at pruning ratio a: five
fast workers with comp in 8-15 s and comm in 5-10 s, five slow ones with 25-45 and 15-40, all uniform. Its loss falls by
.02 loss (1 - .6 a) times a factor uniform in .3-1.7; the loss of all shrinks by the workers' mean.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol

import numpy as np

from prfl_jax.clock import Arrival
from prfl_jax.config import default_config
from prfl_jax.density import BanditDensity, Evidence, make_density

WORKERS, FAST, HIGHEST = 10, 5, 95
FLOOR = 0.05  # of the reward that all are judged by


class Chooser(Protocol):
    """Chooses ratios and learns from what they gave."""

    def ratios(self) -> np.ndarray:
        """`[10]` ratios of the next round."""

    def learn(self, before: np.ndarray, now: np.ndarray, times: np.ndarray) -> None:
        """Each worker's loss before and after the round, and its time in s, `[10]` each."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Means over the last rounds of a play.

    Attributes:
      reward: of all workers, (dLoss / loss) / (abs(T - mean T) / mean T + .05).
      round_s: time of the slowest worker, s.
      fast, slow: ratios of the five fast and of the five slow workers.
    """

    reward: float
    round_s: float
    fast: float
    slow: float


class Workers:
    """The ten workers of a seed, and the chance in their rounds."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        draw = self._rng.uniform
        self.comp_s = np.concatenate([draw(8, 15, FAST), draw(25, 45, WORKERS - FAST)])
        self.comm_s = np.concatenate([draw(5, 10, FAST), draw(15, 40, WORKERS - FAST)])

    def play(self, chooser: Chooser, rounds: int = 300, last: int = 100, noise: float = 0.0) -> Outcome:
        """Plays; the same chance whatever is chosen.

        Args:
          noise: with more than 0 the toy is like training: losses fall by less and less, a half after 50 rounds, and
            each worker reports its loss times a log-normal factor of this deviation. The outcome's rewards stay those
            of the stationary toy, without noise.
        """
        loss, rows, reported = 2.3, [], np.full(WORKERS, 2.3)
        for number in range(rounds):
            kept = 1 - chooser.ratios()
            chance, luck = self._rng.standard_normal(WORKERS), self._rng.uniform(0.3, 1.7, WORKERS)
            times = (self.comp_s * kept**2 + self.comm_s * kept) * np.exp(0.1 * chance)
            falls = 0.02 * loss * (1 - 0.6 * (1 - kept)) * luck
            gaps = np.abs(times - times.mean()) / times.mean()
            rewards = falls / loss / (gaps + FLOOR)
            rows.append((rewards.mean(), times.max(), 1 - kept[:FAST].mean(), 1 - kept[FAST:].mean()))
            if noise:
                loss -= falls.mean() / (1 + number / 50)
                before, reported = reported, loss * np.exp(noise * self._rng.standard_normal(WORKERS))
                chooser.learn(before, reported, times)
            else:
                chooser.learn(np.full(WORKERS, loss), loss - falls, times)
                loss -= falls.mean()
        return Outcome(*np.mean(rows[-last:], axis=0).tolist())


class Equaliser:
    """Knows the speeds: fast workers at 0, slow ones where their time is the fast ones' mean."""

    def __init__(self, workers: Workers) -> None:
        comp, comm = workers.comp_s[FAST:], workers.comm_s[FAST:]
        wanted_s = (workers.comp_s + workers.comm_s)[:FAST].mean()
        kept = [(-m + math.sqrt(m * m + 4 * c * wanted_s)) / (2 * c) for c, m in zip(comp, comm, strict=True)]
        self._ratios = np.concatenate([np.zeros(FAST), 1 - np.array(kept)])

    def ratios(self) -> np.ndarray:
        return self._ratios

    def learn(self, before: np.ndarray, now: np.ndarray, times: np.ndarray) -> None:
        pass


class UniformDraws:
    """A ratio at random for each worker in each round."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng((seed, 1))

    def ratios(self) -> np.ndarray:
        return self._rng.integers(0, HIGHEST + 1, WORKERS) / 100

    def learn(self, before: np.ndarray, now: np.ndarray, times: np.ndarray) -> None:
        pass


class Policy:
    """A density policy of the package, given arrivals and losses as a run gives them."""

    def __init__(self, seed: int, name: str, **settings: Any) -> None:
        config = default_config().density
        with config.ignore_type():
            config.update({"name": name, "min_density": 1 - HIGHEST / 100, **settings})
        self.policy = make_density(config, WORKERS, seed=seed)
        assert isinstance(self.policy, BanditDensity)

    def ratios(self) -> np.ndarray:
        return (100 - self.policy.density_pct) / 100

    def learn(self, before: np.ndarray, now: np.ndarray, times: np.ndarray) -> None:
        policy = self.policy
        if not np.isnan(policy.losses.last).any():  # in the stationary toy all workers have one loss before a round
            policy.losses.last = before
        order = np.argsort(times).tolist()
        arrivals = [Arrival(n, 0, 0, 0.0, 0.0, 0.0, float(times[n]), 0) for n in order]
        policy.observe(arrivals, policy.density_pct[order])
        policy.decide(Evidence(train_loss=now))


def compare(seeds: range, choices: dict[str, dict[str, Any]], noise: float = 0.0) -> dict[str, list[Outcome]]:
    """Outcomes by seed of `choices` (settings of `Policy`), uniform draws and the equaliser, as `Workers.play`."""
    found: dict[str, list[Outcome]] = {}
    for seed in seeds:
        for name, settings in choices.items():
            found.setdefault(name, []).append(Workers(seed).play(Policy(seed, **settings), noise=noise))
        found.setdefault("uniform draws", []).append(Workers(seed).play(UniformDraws(seed), noise=noise))
        workers = Workers(seed)
        found.setdefault("equaliser", []).append(workers.play(Equaliser(workers), noise=noise))
    return found


def table(found: dict[str, list[Outcome]]) -> str:
    """One line a choice: by seed, reward and round time as shares of the equaliser's; means of s and ratios."""
    lines = []
    for name, outcomes in found.items():
        best = found["equaliser"]
        reward = " ".join(f"{own.reward / other.reward:5.2f}" for own, other in zip(outcomes, best, strict=True))
        times = " ".join(f"{own.round_s / other.round_s:5.2f}" for own, other in zip(outcomes, best, strict=True))
        means = [np.mean([getattr(own, field) for own in outcomes]) for field in ("round_s", "fast", "slow")]
        lines.append(f"{name:<28} {reward}  |  {times}  |  {means[0]:5.1f} s  fast {means[1]:.2f}  slow {means[2]:.2f}")
    return "\n".join(lines)

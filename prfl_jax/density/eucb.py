"""E-UCB (FedMP, Algorithm 1): one agent that learns a pruning ratio from rewards, over a partition that it refines.

Jiang et al., "FedMP: Federated Learning through Adaptive Model Pruning in Heterogeneous Edge Computing" (ICDE 2022),
section IV-C. Ratios are whole percents, since densities are, so discounted counts and rewards are kept by percent: an
agent's state does not grow with the run.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Callable
from typing import Any, Self

from prfl_jax.clock.draws import BANDIT, uniforms
from prfl_jax.registry import Registry

# (mean reward of the agent's observations, discounted; its largest reward so far) -> the unit of rewards
Scale = Callable[[float, float], float]

# the choices of `density.reward_scale`
SCALES: Registry[Scale] = Registry(
    "density.reward_scale",
    {
        "mean": lambda mean, largest: mean,
        "largest": lambda mean, largest: largest,
        "unscaled": lambda mean, largest: 1.0,
    },
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How an agent learns.

    Attributes:
      theta: regions whose diameter is larger are split (a ratio).
      discount: lambda in (0, 1]: an observation counts lambda times as much after each further one.
      exploration: factor of the padding of Eq. 10; 1 in the paper.
      scale: the unit that rewards are divided by before the padding is added.
    """

    theta: float
    discount: float
    exploration: float
    scale: Scale


class Agent:
    """The agent of one worker.

    Its regions are [start, next start), the last one ends with `highest`. They are split only where a ratio was drawn
    that is not a region's own start.

    Examples:
      >>> agent = Agent(seed=0, source=3, settings=Settings(0.1, 0.99, 0.5, SCALES.find("mean")), highest=95)
      >>> ratio = agent.draw()
      >>> agent.observe(ratio, 0.5)
      >>> agent.starts == [0, ratio]
      True

    Args:
      seed: root seed of the run.
      source: whose agent it is; agents with other numbers have other draws.
      settings: how it learns.
      highest: the largest pruning ratio, in percent.
    """

    def __init__(self, seed: int, source: int, settings: Settings, highest: int) -> None:
        self._seed, self._source, self._settings, self._highest = seed, source, settings, highest
        self.starts = [0]
        self._counts = [0.0] * (highest + 1)  # by percent: N of Eq. 9
        self._sums = [0.0] * (highest + 1)  # and its numerator
        self._largest = 0.0
        self._draws = 0

    def draw(self) -> int:
        """The pruning ratio of the next round in percent (lines 3-10): chosen region, uniform draw, split."""
        first, second = uniforms(self._seed, BANDIT, self._source, self._draws, 2)
        self._draws += 1
        bounds = self.upper_bounds()
        best = max(bounds)
        equal = [region for region, bound in enumerate(bounds) if bound == best]
        region = equal[int(first * len(equal))]
        low, end = self.starts[region], self._ends()[region]
        ratio = low + int(second * (end - low))
        # the end of the last region belongs to it
        diameter = (min(end, self._highest) - low) / 100
        if diameter > self._settings.theta and ratio != low:
            bisect.insort(self.starts, ratio)
        return ratio

    def observe(self, ratio: int, reward: float) -> None:
        """Adds the reward of a round that was trained at `ratio` percent; it counts lambda at the next draw (Eq. 9)."""
        self._counts[ratio] += 1.0
        self._sums[ratio] += reward
        self._largest = max(self._largest, reward)
        decay = self._settings.discount
        self._counts = [decay * count for count in self._counts]
        self._sums = [decay * total for total in self._sums]

    def upper_bounds(self) -> list[float]:
        """Eq. 11 of each region: discounted mean (Eq. 9) plus padding (Eq. 10); infinite where N is 0.

        The logarithm is of max(n, 1), since the discounted number of rounds n is below 1 at first.
        """
        total = math.fsum(self._counts)
        scale = self._settings.scale(math.fsum(self._sums) / total if total else 0.0, self._largest)
        scale = scale if scale > 0.0 else 1.0
        twice_log = 2.0 * math.log(max(total, 1.0))
        bounds = []
        for low, end in zip(self.starts, self._ends(), strict=True):
            count = math.fsum(self._counts[low:end])
            if not count:
                bounds.append(math.inf)
                continue
            mean = math.fsum(self._sums[low:end]) / count / scale
            bounds.append(mean + self._settings.exploration * math.sqrt(twice_log / count))
        return bounds

    def _ends(self) -> list[int]:
        """The percent after the last one of each region."""
        return [*self.starts[1:], self._highest + 1]

    def to_state(self) -> dict[str, Any]:
        """Everything that changes, as JSON can hold it; percents that were never drawn are left out."""
        rows = enumerate(zip(self._counts, self._sums, strict=True))
        return {
            "starts": list(self.starts),
            "seen": [[ratio, count, total] for ratio, (count, total) in rows if count],
            "largest": self._largest,
            "draws": self._draws,
        }

    def from_state(self, state: dict[str, Any]) -> Self:
        """Restores a saved state; returns itself."""
        self.starts = list(state["starts"])
        for ratio, count, total in state["seen"]:
            self._counts[ratio], self._sums[ratio] = count, total
        self._largest, self._draws = state["largest"], state["draws"]
        return self

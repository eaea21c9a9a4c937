"""E-UCB as plain lists: everything is computed anew from the whole history at each draw (FedMP, Algorithm 1)."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

BANDIT = 7  # the purpose of its draws


def exact(values: list[float]) -> float:
    """The float next to the exact sum."""
    return float(sum(map(Fraction, values), Fraction(0)))


class SlowAgent:
    """One agent; `scale` is mean, largest or unscaled."""

    def __init__(self, seed, source, theta, discount, exploration, scale, highest):
        self.key, self.highest = (seed, BANDIT, source), highest
        self.theta, self.discount, self.exploration, self.scale = theta, discount, exploration, scale
        self.drawn, self.history = [], []

    def regions(self):
        """[first, last] percent of each region, from all draws so far."""
        found = [[0, self.highest]]
        for ratio in self.drawn:
            index = next(i for i, (low, high) in enumerate(found) if low <= ratio <= high)
            low, high = found[index]
            # a region ends where the next one begins, the last one at the highest ratio
            end = high if high == self.highest else high + 1
            if (end - low) / 100 > self.theta and ratio > low:
                found[index : index + 1] = [[low, ratio - 1], [ratio, high]]
        return found

    def discounted(self, percents):
        """(N, sum of discounted rewards) of the observations at these percents (Eq. 9)."""
        counts, sums = [], []
        for percent in percents:
            count = total = 0.0
            for ratio, reward in self.history:
                if ratio == percent:
                    count, total = count + 1.0, total + reward
                count, total = count * self.discount, total * self.discount
            counts.append(count)
            sums.append(total)
        return exact(counts), exact(sums)

    def bounds(self):
        everything = range(self.highest + 1)
        n, total = self.discounted(everything)
        scale = 1.0
        if self.scale == "mean" and n > 0:
            scale = total / n
        elif self.scale == "largest":
            scale = max([0.0, *(reward for _, reward in self.history)])
        found = []
        for low, high in self.regions():
            count, rewards = self.discounted(range(low, high + 1))
            if count == 0:
                found.append(math.inf)
            else:
                padding = self.exploration * math.sqrt(2.0 * math.log(max(n, 1.0)) / count)
                found.append(rewards / count / (scale if scale > 0 else 1.0) + padding)
        return found

    def draw(self):
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((*self.key, len(self.drawn)))))
        among, within = rng.random(2).tolist()
        bounds = self.bounds()
        equal = [region for region, bound in zip(self.regions(), bounds, strict=True) if bound == max(bounds)]
        low, high = equal[math.floor(among * len(equal))]
        ratio = low + math.floor(within * (high - low + 1))
        self.drawn.append(ratio)
        return ratio

    def observe(self, ratio, reward):
        self.history.append((ratio, reward))

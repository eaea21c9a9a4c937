"""Keyed random factors of speeds: the k-th draw of a source depends only on (seed, purpose, source, k).

So methods that are compared meet the same network (common random numbers), and a resumed
run needs no generator's state.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Container

import numpy as np

CLIENT_DOWN, CLIENT_UP, SERVER_UP, SERVER_DOWN, COHORT, FAULT, MALICIOUS, BANDIT = range(8)
_BLOCK = 256
_PIECES = (8, 64, _BLOCK)  # draws of a block that are made at a time: of very many clients each needs few


class LogNormals:
    """Factors exp(sigma * N(0, 1)).

    Args:
      seed: root seed of the run (any integer).
      purpose: one of the numbers above, so that uses do not share draws.
      sigma: deviation of the logarithm.
    """

    def __init__(self, seed: int, purpose: int, sigma: float) -> None:
        self._seed = seed % 2**64
        self._purpose = purpose
        self._sigma = sigma
        self._blocks: dict[int, tuple[int, array[float]]] = {}  # source -> its newest block, as far as needed
        self._table = np.empty((0, _PIECES[0]))  # the same of `factors`, by source
        self._number, self._have = np.empty(0, np.int64), np.empty(0, np.int64)

    def factor(self, source: int, k: int) -> float:
        """The k-th factor (from 0) of a source (a client's id; 0 for the server)."""
        if self._sigma == 0.0:
            return 1.0
        number, place = divmod(k, _BLOCK)
        held = self._blocks.get(source)
        if held is None or held[0] != number or place >= len(held[1]):
            held = self._blocks[source] = (number, array("d", self._normals(source, number, place).tobytes()))
        return math.exp(self._sigma * held[1][place])

    def factors(self, sources: np.ndarray, ks: np.ndarray) -> np.ndarray:
        """`factor` of each pair, to the bit, for thousands of different sources at a time."""
        if self._sigma == 0.0 or not len(sources):
            return np.ones(len(sources))
        more = int(sources.max()) + 1 - len(self._table)
        if more > 0:
            self._table = np.pad(self._table, ((0, more), (0, 0)))
            self._number, self._have = np.pad(self._number, (0, more)), np.pad(self._have, (0, more))
        numbers, places = np.divmod(ks, _BLOCK)
        lacking = (self._number[sources] != numbers) | (self._have[sources] <= places)
        for source, number, place in zip(
            sources[lacking].tolist(), numbers[lacking].tolist(), places[lacking].tolist(), strict=True
        ):
            normals = self._normals(source, number, place)
            if len(normals) > self._table.shape[1]:
                self._table = np.pad(self._table, ((0, 0), (0, len(normals) - self._table.shape[1])))
            # math.exp, as above: NumPy's own may differ in the last bit
            self._table[source, : len(normals)] = [math.exp(self._sigma * value) for value in normals.tolist()]
            self._number[source], self._have[source] = number, len(normals)
        return self._table[sources, places]

    def _normals(self, source: int, number: int, place: int) -> np.ndarray:
        """The beginning of a block, at least up to `place`."""
        key = np.random.SeedSequence((self._seed, self._purpose, source, number))
        count = next(piece for piece in _PIECES if place < piece)
        return np.random.Generator(np.random.PCG64(key)).standard_normal(count)


def uniforms(seed: int, purpose: int, source: int, k: int, count: int) -> list[float]:
    """`count` numbers in [0, 1): the k-th draw (from 0) of a source; depends on nothing but its arguments."""
    key = np.random.SeedSequence((seed % 2**64, purpose, source, k))
    return np.random.Generator(np.random.PCG64(key)).random(count).tolist()


def draw_idle(seed: int, number: int, count: int, clients: int, busy: Container[int]) -> list[int]:
    """`count` different clients of `clients`, none of them `busy`, uniformly; by id.

    Depends on nothing but its arguments. Numbers are taken until enough of them are idle; where that takes long, the
    rest is drawn from a list of those that are left.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed % 2**64, COHORT, number))))
    drawn: set[int] = set()
    for _ in range(4):
        for client in rng.integers(clients, size=2 * count).tolist():
            if client not in busy:
                drawn.add(client)
                if len(drawn) == count:
                    return sorted(drawn)
    idle = [client for client in range(clients) if client not in busy and client not in drawn]
    more = rng.choice(len(idle), count - len(drawn), replace=False)
    return sorted([*drawn, *(idle[i] for i in more.tolist())])

"""The cuts of `thresholds.py` found by NumPy, whose sort is many times faster on a CPU than XLA's (NumPy alone)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from prfl_jax.system import provenance

_LEAST = 1 << 16  # keys of a part, below which another thread is not worth it
_NONE = np.iinfo(np.int32).max


class SortedKeys:
    """The keys of all leaves, sorted in parts by as many threads as there are cores.

    Args:
      keys: int32 `[n]` a leaf, >= 0; they are left as they are.
    """

    def __init__(self, keys: Sequence[np.ndarray]) -> None:
        cores = provenance.cores()
        size = max(_LEAST, -(-sum(key.size for key in keys) // cores))
        parts = [(k, key[at : at + size]) for k, key in enumerate(keys) for at in range(0, key.size, size)]
        parts.sort(key=lambda part: -part[1].size)
        with ThreadPoolExecutor(cores) as pool:
            found = list(pool.map(lambda part: np.sort(part[1]), parts))
        self._leaves = [
            [part for (k, _), part in zip(parts, found, strict=True) if k == leaf] for leaf in range(len(keys))
        ]

    def number(self, leaf: int, thresholds: np.ndarray, strict: bool = False) -> np.ndarray:
        """How many keys of a leaf are at least (`strict`: above) each threshold `[K]`."""
        total = np.zeros(len(thresholds), np.int64)
        for part in self._leaves[leaf]:
            total += part.size - np.searchsorted(part, thresholds, side="right" if strict else "left")
        return total

    def cuts(self, base: Sequence[int], need: np.ndarray) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
        """The `Cut`s of each leaf's own `base` largest, and of the `need` `[K]` largest of all that are left.

        Returns:
          Two tuples of (key, ties, some): `[leaves]` and `[K]`.
        """
        own = np.asarray(base, np.int64)
        leaves = range(len(self._leaves))

        def in_leaves(thresholds: np.ndarray, strict: bool) -> np.ndarray:
            return np.concatenate([self.number(leaf, thresholds[leaf : leaf + 1], strict) for leaf in leaves])

        def left(thresholds: np.ndarray, strict: bool) -> np.ndarray:
            # a leaf's own are its largest
            return sum(np.maximum(self.number(leaf, thresholds, strict) - own[leaf], 0) for leaf in leaves)  # type: ignore[return-value]

        return _cut(in_leaves, own), _cut(left, np.asarray(need, np.int64))


def settle_ties(
    keys: Sequence[np.ndarray],
    levels: Sequence[np.ndarray],
    places: Sequence[np.ndarray],
    own: Any,
    rest: Any,
    by_index: np.ndarray,
) -> list[np.ndarray]:
    """Levels in which of the scores that are equal to a threshold only the first are taken.

    Args:
      keys: `[n]` a leaf.
      levels: in the leaves' shapes, with all of them taken.
      places: of the scores that are equal to a threshold which takes some, ascending.
      own, rest: the `Cut`s of each leaf's own and of all that is left.
      by_index: int8 `[K + 1]`, the level of what k of the cuts leave out.
    """
    before, out = np.zeros(len(rest.key), np.int64), []
    for leaf, (key, level, at) in enumerate(zip(keys, levels, places, strict=True)):
        found, equal = key[at], key[at] == own.key[leaf]
        is_own = (found > own.key[leaf]) | (equal & (np.cumsum(equal) <= own.ties[leaf]))
        left_out_by = np.sum(found[:, None] < rest.key, axis=1)
        for k in np.flatnonzero(rest.some):
            tie = (found == rest.key[k]) & ~is_own
            left_out_by += tie & (before[k] + np.cumsum(tie) > rest.ties[k])
            before[k] += np.count_nonzero(tie)
        settled = np.array(level)
        settled.reshape(-1)[at] = np.where(is_own, by_index[0], by_index[left_out_by])
        out.append(settled)
    return out


def histogram(levels: np.ndarray) -> np.ndarray:
    """How often each value from 0 to 127 is among int8 levels >= 0, `[128]`."""
    flat = np.ascontiguousarray(levels).reshape(-1)
    even = flat.size // 2 * 2
    pairs = np.bincount(flat[:even].view(np.uint16), minlength=1 << 16).reshape(256, 256)  # half as many to count
    found = pairs.sum(axis=0) + pairs.sum(axis=1)
    found[flat[even:]] += 1
    return found[:128]


def _cut(number: Callable[[np.ndarray, bool], np.ndarray], need: np.ndarray) -> tuple[np.ndarray, ...]:
    """`find_cut`; `number` is called with (keys, whether strictly above)."""
    key = np.zeros(need.shape, np.int32)
    for bit in range(30, -1, -1):
        higher = key | np.int32(1 << bit)
        key = np.where(number(higher, False) >= need, higher, key)
    reach, above = number(key, False), number(key, True)
    none = need == 0
    return (
        np.where(none, _NONE, key).astype(np.int32),
        (need - above).astype(np.int32),
        ~none & (reach > need),
    )

"""Classes of positions on the axes of parameter leaves that carry the same channel: union-find on arrays (NumPy only).

A node is one index of one axis of one leaf. While a program is followed (`channel_trace.py`), nodes that meet in an
elementwise operation, and the inputs of a kernel and the outputs that it reads, are joined. A class of nodes is then
one channel: what has to go together.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

NONE = -1  # a value without a channel


class Classes:
    """Union-find over the axes of leaves.

    Args:
      shapes: of the leaves, by path.

    Attributes:
      mixed: (nodes, place) of each operation that reads several channels at once other than by a kernel.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.axes = [(path, axis) for path, shape in shapes.items() for axis in range(len(shape))]
        lengths = [length for shape in shapes.values() for length in shape]
        self.starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        self._first = dict(zip(self.axes, self.starts.tolist(), strict=False))
        self._parent = np.arange(self.starts[-1], dtype=np.int32)
        self._whole = np.zeros(self.starts[-1], bool)
        self._made: dict[int, None] = {}  # numbers of axes whose nodes are outputs of a kernel, in the order met
        self.mixed: list[tuple[np.ndarray, str]] = []

    def nodes(self, path: str, axis: int, length: int) -> np.ndarray:
        """The nodes of one axis of a leaf: `[length]` int32."""
        first = self._first[path, axis]
        return np.arange(first, first + length, dtype=np.int32)

    def axis_of(self, nodes: np.ndarray) -> np.ndarray:
        """For each node the number of its axis, in `axes`."""
        return np.searchsorted(self.starts, nodes, side="right") - 1

    def find(self, nodes: np.ndarray) -> np.ndarray:
        """The representative of each node, the smallest of its class; `NONE` stays."""
        found = np.where(nodes >= 0, self._parent[nodes], NONE)
        while True:
            above = np.where(found >= 0, self._parent[found], NONE)
            if np.array_equal(above, found):
                return found
            found = above

    def join(self, one: np.ndarray, other: np.ndarray) -> None:
        """Makes one class of each pair, where both have a channel; arrays that broadcast."""
        pairs = np.stack(np.broadcast_arrays(one, other)).reshape(2, -1)
        pairs = np.unique(pairs[:, (pairs >= 0).all(axis=0)], axis=1)
        while True:
            a, b = self.find(pairs[0]), self.find(pairs[1])
            apart = a != b
            if not apart.any():
                break
            low, high = np.minimum(a, b)[apart], np.maximum(a, b)[apart]
            np.minimum.at(self._parent, high, low)  # of two links from one root the next turn makes the other
        self._parent = self.find(self._parent)

    def merge(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Joins two arrays; returns the channels of a value computed from both elementwise."""
        self.join(one, other)
        return np.where(one >= 0, one, other)

    def keep_whole(self, nodes: np.ndarray) -> None:
        """No channel of these nodes can be removed."""
        self._whole[nodes[nodes >= 0]] = True

    def make(self, nodes: np.ndarray) -> None:
        """These nodes are outputs of a kernel, which can be removed."""
        self._made.update(dict.fromkeys(np.unique(self.axis_of(nodes[nodes >= 0])).tolist()))

    def mix(self, nodes: np.ndarray, place: str) -> None:
        """An operation reads several channels of these nodes at once, so that none of them can go."""
        nodes = np.unique(nodes[nodes >= 0])
        if len(nodes):
            self.mixed.append((nodes, place))

    @property
    def made(self) -> list[tuple[str, int]]:
        """(path, axis) whose nodes are outputs of a kernel, in the order in which they were met."""
        return [self.axes[place] for place in self._made]

    def removable(self) -> tuple[np.ndarray, np.ndarray]:
        """Representatives of all nodes, and for each node whether its class can be removed."""
        every = np.arange(len(self._parent), dtype=np.int32)
        roots = self.find(every)
        made, whole = np.zeros(len(every), bool), np.zeros(len(every), bool)
        for place in self._made:
            made[roots[self.starts[place] : self.starts[place + 1]]] = True
        whole[roots[self._whole]] = True
        return roots, (made & ~whole)[roots]

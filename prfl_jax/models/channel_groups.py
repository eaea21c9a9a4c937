"""`ChannelGroups`: which index of which axis of which leaf belongs to which channel of a network (NumPy only).

A sub-model of channels keeps an entry of a leaf if it keeps the channels of all its axes. The groups are found in the
traced program (`channel_search.py`), or declared by the module.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from prfl_jax.models.channel_classes import NONE, Classes

Axes = tuple[np.ndarray | None, ...]


@dataclasses.dataclass(frozen=True)
class ChannelGroup:
    """Channels that are ranked among each other: those of a layer, or of all layers that a residual sum ties.

    Attributes:
      name: of the first layer that makes them.
      first: number of its first channel; the others follow.
      size: how many channels it has.
      outputs: (path, axis) of the leaves of rank 2 and more that make its channels, such as kernels along their
        outputs.
      recurrent: whether a leaf reads and makes them, such as the recurrent kernel of an LSTM.
    """

    name: str
    first: int
    size: int
    outputs: tuple[tuple[str, int], ...]
    recurrent: bool = False

    def indices(self, channels: np.ndarray) -> np.ndarray:
        """Int32 `[size, times]` indices of each channel of the group on an axis with these channels."""
        own = channels - self.first
        (at,) = np.nonzero((own >= 0) & (own < self.size))
        return at[np.argsort(own[at], kind="stable")].reshape(self.size, -1).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class ChannelGroups:
    """The channels of a network.

    Attributes:
      groups: in the order in which the network computes them; each has at least two channels.
      axes: for each leaf, the state's too, by path: for each axis None, or int32 `[n]`, the channel of each index,
        `NONE` where it belongs to none. Within a leaf's axis all channels of a group stand equally often.
    """

    groups: tuple[ChannelGroup, ...]
    axes: Mapping[str, Axes]

    @property
    def size(self) -> int:
        """How many channels there are."""
        return sum(group.size for group in self.groups)

    def places(self, group: ChannelGroup) -> Iterator[tuple[str, int, np.ndarray]]:
        """(path, axis, `[size, times]` indices of each channel of the group) for each axis that has it."""
        for path, axes in self.axes.items():
            for axis, channels in enumerate(axes):
                if channels is not None and (at := group.indices(channels)).size:
                    yield path, axis, at

    def masks(self, keep: np.ndarray) -> dict[str, np.ndarray]:
        """Boolean masks by path, each in a shape that broadcasts to its leaf's.

        Args:
          keep: bool `[size]`, which channels are kept.
        """
        found = {}
        for path, axes in self.axes.items():
            mask = np.ones((1,) * len(axes), bool)
            for axis, channels in enumerate(axes):
                if channels is not None:
                    lengths = [-1 if k == axis else 1 for k in range(len(axes))]
                    mask = mask & np.append(keep, True)[channels].reshape(lengths)
            found[path] = mask
        return found


def groups_of(classes: Classes, shapes: Mapping[str, tuple[int, ...]], again: set[str]) -> ChannelGroups:
    """The groups of a traced network: classes that can be removed and stand equally often on the same axes.

    Args:
      shapes: of the leaves, by path, as `classes` has them.
      again: leaves that are read more than once (`ChannelTrace`).
    """
    roots, removable = classes.removable()
    nodes = np.flatnonzero(removable)
    signature: dict[int, list[int]] = {}
    for root, place in zip(roots[nodes].tolist(), classes.axis_of(nodes).tolist(), strict=True):
        signature.setdefault(root, []).append(place)
    alike: dict[tuple[int, ...], list[int]] = {}
    for root in sorted(signature):
        alike.setdefault(tuple(sorted(signature[root])), []).append(root)
    order = {place: number for number, place in enumerate(classes.made)}
    members = [(key, own) for key, own in alike.items() if len(own) > 1]  # a layer keeps at least one channel
    members.sort(key=lambda pair: min(order.get(classes.axes[place], len(order)) for place in pair[0]))
    number = np.full(len(roots), NONE, np.int32)
    groups, first = [], 0
    for key, own in members:
        made = [classes.axes[place] for place in dict.fromkeys(key) if classes.axes[place] in order]
        made.sort(key=lambda place: order[place])
        paths = [classes.axes[place][0] for place in dict.fromkeys(key)]
        recurrent = any(path in again and paths.count(path) > 1 for path in paths)
        outputs = tuple((path, axis) for path, axis in made if len(shapes[path]) > 1)
        groups.append(ChannelGroup(_layer(made[0][0]), first, len(own), outputs, recurrent))
        number[own] = np.arange(first, first + len(own))
        first += len(own)
    channels = number[roots]
    axes: dict[str, list[np.ndarray | None]] = {path: [] for path in shapes}
    for place, (path, _) in enumerate(classes.axes):
        if path not in axes:  # of the samples
            continue
        part = channels[classes.starts[place] : classes.starts[place + 1]]
        axes[path].append(part if (part >= 0).any() else None)
    return ChannelGroups(tuple(groups), {path: tuple(own) for path, own in axes.items()})


def _layer(path: str) -> str:
    """The name of the layer that has a leaf."""
    return path.rpartition("/")[0] or path


def declared_groups(names: Mapping[str, Sequence[str | None]], shapes: Mapping[str, tuple[int, ...]]) -> ChannelGroups:
    """The groups that a module declares.

    Args:
      names: for leaves by path, a name of a group or None for each axis. The shortest axis of a name is the group's
        size, and longer ones have all its channels several times, in the same order. Kernels make the channels of
        their last axis.
      shapes: of all leaves, the state's too, by path.

    Raises:
      ValueError: a path that is no leaf, another number of axes, lengths that do not fit.
    """
    if not isinstance(names, Mapping):
        raise ValueError(f"{names!r}; allowed: a dict from the path of a leaf to a name or None for each of its axes")
    lengths: dict[str, list[int]] = {}
    for path, own in names.items():
        if path not in shapes:
            raise ValueError(f"{path!r} is no leaf; allowed: {', '.join(shapes)}")
        if not isinstance(own, tuple | list) or len(own) != len(shapes[path]):
            raise ValueError(f"{path!r} has {own!r}; allowed: one name or None for each of {len(shapes[path])} axes")
        for name, length in zip(own, shapes[path], strict=True):
            if name is not None:
                lengths.setdefault(name, []).append(length)
    groups: dict[str, ChannelGroup] = {}
    for name, found in lengths.items():
        size, first = min(found), sum(group.size for group in groups.values())
        if size < 2 or any(length % size for length in found):
            raise ValueError(f"axes of group {name!r} have lengths {found}; allowed: at least 2, and multiples of it")
        makes = [p for p, own in names.items() if len(own) > 1 and own[-1] == name]
        if not makes:
            raise ValueError(
                f"group {name!r} is made by no kernel; allowed: with a leaf of rank 2 whose last axis it is"
            )
        again = any(list(names[path]).count(name) > 1 for path in makes)
        groups[name] = ChannelGroup(name, first, size, tuple((p, len(shapes[p]) - 1) for p in makes), again)

    def channels(name: str | None, length: int) -> Any:
        return None if name is None else (groups[name].first + np.arange(length) % groups[name].size).astype(np.int32)

    axes = {path: tuple(map(channels, names.get(path, (None,) * len(shape)), shape)) for path, shape in shapes.items()}
    return ChannelGroups(tuple(groups.values()), axes)

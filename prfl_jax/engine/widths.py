"""`Widths`: trains a sub-model of whole channels in the smallest of a few compiled widths of the network that holds it.

A width is the same network with a share of each group's channels. It is filled with the channels that the client has,
and then with others of the same group. Those are removed channels: their values are 0 and their masks False, as in
training at full size, so the client's channels get the same gradients. Afterwards every value goes back to its place. A
client that no width holds, such as one of density 1, is trained by the full-size round itself.

Two things differ from training at full size. Sums over channels have fewer zeros, which changes the rounding. Random
numbers are drawn in the shapes of narrower layers, so with dropout a run is the same in distribution alone.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prfl_jax.engine.groups import AXIS
from prfl_jax.local import LocalInput, LocalResult, LocalTask, LocalWork
from prfl_jax.models.build import Model
from prfl_jax.models.channel_classes import NONE
from prfl_jax.models.channel_groups import ChannelGroup, ChannelGroups
from prfl_jax.submodel.layout import Layout
from prfl_jax.system.errors import shown

Round = Callable[[LocalTask, LocalInput], LocalResult]


class AxisPlaces(NamedTuple):
    """Where the indices of one axis of a narrower leaf are in the full one.

    Attributes:
      axis: its number.
      others: int32 `[l]`, where indices of no channel are in the full leaf.
      groups: (number of the group, `[n, times]` indices in the narrower leaf, `[C, times]` in the full one).
    """

    axis: int
    others: np.ndarray
    groups: tuple[tuple[int, np.ndarray, np.ndarray], ...]


@dataclasses.dataclass(frozen=True)
class Width:
    """A narrower network.

    Attributes:
      share: of the channels, as asked for.
      model, layout: of it; the layout has the same leaves as the full one.
      sizes: how many channels each group has.
      places: for each leaf its axes with channels, in the order of `layout.paths`.
    """

    share: float
    model: Model
    layout: Layout
    sizes: tuple[int, ...]
    places: tuple[tuple[AxisPlaces, ...], ...]


def width_of(share: float, model: Model, layout: Layout, groups: tuple[ChannelGroups, ChannelGroups]) -> Width:
    """A width from a narrower model.

    Args:
      layout: of the full model.
      groups: of the full model and of the narrower one.

    Raises:
      ValueError: their groups do not correspond one to one.
    """
    full, small = groups
    if [_layers(group) for group in full.groups] != [_layers(group) for group in small.groups]:
        raise ValueError("its channel groups are not those of the full network")
    shapes = tuple(tuple(leaf.shape) for leaf in jax.tree.leaves(model.shapes()))
    narrow = dataclasses.replace(layout, shapes=shapes)
    places = tuple(
        tuple(
            _axis_places(axis, path, (full, small), (layout.shapes[i][axis], shapes[i][axis]))
            for axis in range(len(shapes[i]))
            if full.axes[path][axis] is not None or layout.shapes[i][axis] != shapes[i][axis]
        )
        for i, path in enumerate(layout.paths)
    )
    return Width(share, model, narrow, tuple(group.size for group in small.groups), places)


def _layers(group: ChannelGroup) -> tuple[Any, ...]:
    return group.name, group.outputs, group.recurrent


def _axis_places(
    axis: int, path: str, groups: tuple[ChannelGroups, ChannelGroups], lengths: tuple[int, int]
) -> AxisPlaces:
    """Of one axis.

    Raises:
      ValueError: a group stands another number of times on it, or it has other indices of no channel.
    """
    channels = [
        np.full(length, NONE) if (own := part.axes[path][axis]) is None else own
        for part, length in zip(groups, lengths, strict=True)
    ]
    of_none = [np.flatnonzero(own < 0) for own in channels]
    index, found = np.zeros(lengths[1], np.int32), []
    same = len(of_none[0]) == len(of_none[1])
    if same:
        index[of_none[1]] = of_none[0]
    for number, pair in enumerate(zip(groups[0].groups, groups[1].groups, strict=True)):
        there, here = (group.indices(own) for own, group in zip(channels, pair, strict=True))
        same = same and there.shape[1] == here.shape[1]
        if there.size:
            found.append((number, here, there))
    if not same:
        raise ValueError(f"axis {axis} of {path} has its channels elsewhere than in the full network")
    return AxisPlaces(axis, index, tuple(found))


@dataclasses.dataclass(frozen=True)
class Widths:
    """The widths of one model and sub-model rule.

    Attributes:
      groups: of the full model.
      layout: of the full model.
      widths: ascending, at least one.
      grouped: whether rounds are called for a group of clients at once (`SlotGroups.over`), who then train together in
        the smallest width that holds each of them.
    """

    groups: ChannelGroups
    layout: Layout
    widths: tuple[Width, ...]
    grouped: bool = False

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the widths."""
        return tuple(width.share for width in self.widths)

    def wrap(self, work: LocalWork) -> LocalWork:
        """The work, whose rounds choose their width."""
        return dataclasses.replace(work, round=functools.partial(self.round, work.round))

    def round(self, inner: Round, task: LocalTask, given: LocalInput) -> LocalResult:
        """A client's round in the smallest width that holds its sub-model.

        Args:
          inner: the round of the local work.
        """
        kept = self._kept(given.masks)
        # the client's channels of each group in their order, then the others
        order = [jnp.argsort(~own, stable=True).astype(jnp.int32) for own in kept]
        counts = jnp.stack([jnp.sum(own, dtype=jnp.int32) for own in kept])
        sizes = jnp.asarray([width.sizes for width in self.widths], jnp.int32)
        number = jnp.sum(~jnp.all(counts <= sizes, axis=1), dtype=jnp.int32)  # a wider one holds what a narrower does
        if self.grouped:
            number = lax.pmax(number, AXIS)
        narrow = [functools.partial(self._narrow, width, inner, task, given, order) for width in self.widths]
        return lax.switch(number, [*narrow, lambda: inner(task, given)])

    @functools.cached_property
    def _told_by(self) -> tuple[tuple[int, int, np.ndarray], ...]:
        """For each group the smallest leaf with masks that has it: (its number of those, axis, `[size, times]`)."""
        sizes, found = self.layout.sizes(), []
        numbers = {self.layout.paths[i]: number for number, i in enumerate(self.layout.prunable)}
        for group in self.groups.groups:
            places = [place for place in self.groups.places(group) if place[0] in numbers]
            path, axis, indices = min(places, key=lambda place: sizes[numbers[place[0]]])
            found.append((numbers[path], axis, indices))
        return tuple(found)

    def _kept(self, masks: tuple[jax.Array, ...]) -> list[jax.Array]:
        """Bool `[size]` for each group: which channels a client has (`SubmodelRule.whole_channels`)."""
        found = []
        for number, axis, indices in self._told_by:
            mask = masks[number]
            some = jnp.any(mask, axis=tuple(k for k in range(mask.ndim) if k != axis))
            found.append(some[indices[:, 0]])
        return found

    def _narrow(
        self, width: Width, inner: Round, task: LocalTask, given: LocalInput, order: Sequence[jax.Array]
    ) -> LocalResult:
        """The round in one width."""
        at = [tuple(map(functools.partial(index_of, order), axes)) for axes in width.places]
        masked = [at[i] for i in self.layout.prunable]

        def taken(tree: Any) -> Any:
            places = of_leaves(self.layout, tree, at)
            leaves = [take(leaf, place) for leaf, place in zip(jax.tree.leaves(tree), places, strict=True)]
            return jax.tree.unflatten(jax.tree.structure(tree), leaves)

        def back(tree: Any, small: Any) -> Any:
            parts = jax.tree.leaves(tree), jax.tree.leaves(small), of_leaves(self.layout, tree, at)
            leaves = [put(leaf, own, place) for leaf, own, place in zip(*parts, strict=True)]
            return jax.tree.unflatten(jax.tree.structure(tree), leaves)

        levels: Any = task.levels
        if levels:
            levels = tuple(take(jnp.asarray(level), place) for level, place in zip(levels, masked, strict=True))
        small = dataclasses.replace(task, model=width.model, layout=width.layout, levels=levels)
        own = (
            taken(given.params),
            tuple(take(mask, place) for mask, place in zip(given.masks, masked, strict=True)),
            taken(given.kept),
            taken(given.beside),
        )
        # else XLA would take the values again for each of their uses, and bring the layouts of both sides together
        params, masks, kept, beside = lax.optimization_barrier(own)
        result = inner(small, given._replace(params=params, masks=masks, kept=kept, beside=beside))
        result = lax.optimization_barrier(result)
        shapes = [self.layout.shapes[i] for i in self.layout.prunable]
        squares = result.squares and tuple(
            put(jnp.zeros(shape, s.dtype), s, place)
            for shape, s, place in zip(shapes, result.squares, masked, strict=True)
        )
        return LocalResult(back(given.params, result.params), result.loss, squares, back(given.kept, result.kept))


Places = tuple[tuple[int, jax.Array], ...]  # (axis, int32 indices in the full leaf) of the axes with channels


def index_of(order: Sequence[jax.Array], places: AxisPlaces) -> tuple[int, jax.Array]:
    """The indices of one axis in the full leaf, for a client's channels in their order."""
    index = jnp.asarray(places.others)
    for number, here, there in places.groups:
        channels = order[number][: len(here)]
        index = index.at[here.reshape(-1)].set(jnp.asarray(there)[channels].reshape(-1))
    return places.axis, index


def of_leaves(layout: Layout, tree: Any, items: Sequence[Any]) -> list[Any]:
    """For each leaf of a pytree the item of the params' leaf that it belongs to, by its path and shape; () for none.

    Args:
      tree: params, or what is kept beside them, such as moments.
      items: one for each leaf of the layout.
    """
    own = {path: (shape, item) for path, shape, item in zip(layout.paths, layout.shapes, items, strict=True)}
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        names = [str(getattr(key, "key", key)) for key in path]
        ends = (own.get("/".join(names[k:])) for k in range(len(names)))
        shape, item = next((end for end in ends if end is not None), (None, ()))
        found.append(item if leaf.shape == shape else ())
    return found


def take(leaf: jax.Array, places: Places) -> jax.Array:
    """The narrower leaf out of the full one."""
    if not places:
        return leaf
    # indices of all axes give the usual layout; of one axis alone XLA makes a transposed array, which slows products
    own = dict(places)
    indices = [own.get(axis, jnp.arange(length, dtype=jnp.int32)) for axis, length in enumerate(leaf.shape)]
    return leaf.at[jnp.ix_(*indices)].get(mode="promise_in_bounds", unique_indices=True)


def put(leaf: jax.Array, small: jax.Array, places: Places) -> jax.Array:
    """The full leaf with a narrower one's values at their places; without places the narrower one."""
    if not places:
        return small
    # read by the full leaf's entries, which is several times as fast on a CPU as a scatter of the narrower leaf's
    from_small, there = list[Any](), jnp.ones((1,) * leaf.ndim, bool)
    own = dict(places)
    for axis, length in enumerate(leaf.shape):
        numbers = jnp.arange(small.shape[axis], dtype=jnp.int32)
        if axis in own:
            along = [-1 if k == axis else 1 for k in range(leaf.ndim)]
            there &= jnp.zeros(length, bool).at[own[axis]].set(True).reshape(along)
            numbers = jnp.zeros(length, jnp.int32).at[own[axis]].set(numbers)
        from_small.append(numbers)
    return jnp.where(there, small.at[jnp.ix_(*from_small)].get(mode="promise_in_bounds"), leaf)


def check_kept(widths: Widths, task: LocalTask, init: Callable[[LocalTask, Any], Any]) -> None:
    """Checks that what clients keep can be taken into each width (`ClientState.init`); it traces and computes nothing.

    Raises:
      ValueError: a narrower network would keep something else.
    """
    params = task.model.shapes()
    full = jax.eval_shape(lambda params: init(task, params), params)
    for width in widths.widths:
        small = dataclasses.replace(task, model=width.model, layout=width.layout)
        want = jax.eval_shape(lambda params, small=small: init(small, params), width.model.shapes())
        shapes = of_leaves(widths.layout, full, width.layout.shapes)
        found = [shape or leaf.shape for shape, leaf in zip(shapes, jax.tree.leaves(full), strict=True)]
        if found != [leaf.shape for leaf in jax.tree.leaves(want)]:
            raise ValueError("what clients keep of it has other shapes than its weights")


def unmasked(groups: ChannelGroups, layout: Layout) -> list[str]:
    """Paths of leaves that have channels and no mask."""
    masked = {layout.paths[i] for i in layout.prunable}
    return [p for p, axes in groups.axes.items() if any(own is not None for own in axes) and p not in masked]


def width_changes(before: Sequence[float], now: Sequence[float]) -> list[str]:
    """A line for a run that is resumed with other shares of the channels; none if they are the same."""
    if tuple(before) == tuple(now):
        return []
    return [
        f"engine.widths=None meant {shown(tuple(before))} before and means {shown(tuple(now))} here: last bits may "
        "differ, and with dropout its draws"
    ]

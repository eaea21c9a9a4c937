"""FedMP's sub-models (Jiang et al. 2022, section III-B): the channels of largest l1 norm at each dispatch.

Of every group of channels (filters, neurons, units of a recurrent layer) a sub-model keeps ceil(C r), at least one, one
density for all groups; the outputs stay whole. A removed channel takes its biases, its entries of batch norm and of the
running statistics, and the inputs of the layers that read it with it: what is sent is the small network. A channel's
score is the sum of the absolute weights that make it, of the server's model; where a residual sum ties layers, their
sums are added. A unit of a recurrent layer is scored by all of its weights, those that read it too (Wen et al. 2018,
"Learning intrinsic sparse structures within long short-term memory"). Of equal scores the first channel is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from prfl_jax.models.channel_groups import ChannelGroup, ChannelGroups
from prfl_jax.submodel.given import GivenSize
from prfl_jax.submodel.leading import kept
from prfl_jax.submodel.rule import Arrays, Network, SubmodelRule, Submodels
from prfl_jax.submodel.size import ModelSize


class Filters(SubmodelRule):
    """The channels of largest l1 norm."""

    @property
    def channels(self) -> bool:
        return True

    @property
    def whole_channels(self) -> bool:
        return True

    @property
    def masks_state(self) -> bool:
        return True

    def fit(self, network: Network, name: str) -> Submodels:
        """Sizes of the small networks, and masks from the weights at the dispatch instead of levels."""
        groups = network.channels()
        paths = tuple(network.shapes) if network.masked is None else network.masked
        counts = np.array([[kept(group.size, max(percent, 1)) for group in groups.groups] for percent in range(101)])

        def masks(levels: Arrays, weights: Arrays, percent: Any) -> Arrays:
            import jax.numpy as jnp

            leaves = dict(zip(paths, weights, strict=True))
            scored = {path: leaf for path, leaf in leaves.items() if path in network.shapes}  # without the state
            scores = [channel_scores(groups, group, scored) for group in groups.groups]
            keep = _largest(groups, jnp.concatenate(scores), jnp.asarray(counts, jnp.int32)[percent])
            keep = jnp.append(keep, True)  # the last one is of what has no channel
            return tuple(_mask(groups.axes[path], keep, leaves[path].shape) for path in paths)

        size = cut_size(groups, paths, counts, network.size, [path not in network.shapes for path in paths])
        return Submodels(size, levels=(), masks=masks)


def cut_size(
    groups: ChannelGroups, paths: tuple[str, ...], counts: np.ndarray, size: ModelSize, state: list[bool]
) -> GivenSize:
    """Sizes of the networks cut out.

    FLOP of a leaf shrink with its inputs and its outputs; those that belong to no leaf do not.

    Args:
      paths: of the leaves with masks, in order.
      counts: `[101, groups]` channels that each group keeps, by percent.
      size: of the full model, with these leaves as its `layers`.
      state: which of the leaves are the model's state.
    """
    held = np.stack([_values(groups, path, length, counts) for path, length in zip(paths, size.layers, strict=True)], 1)
    unmasked = size.state - sum(length for length, own in zip(size.layers, state, strict=True) if own)
    return GivenSize(
        layers=size.layers,
        fixed=size.fixed,
        bytes_per_value=size.bytes_per_value,
        layer_flop=size.layer_flop,
        rest_flop=size.rest_flop,
        state=size.state,
        kernels=size.kernels,
        kernel_layers=size.kernel_layers,
        held=tuple(tuple(row) for row in held.tolist()),
        held_state=tuple((held[:, state].sum(1) + unmasked).tolist()),
    )


def _values(groups: ChannelGroups, path: str, length: int, counts: np.ndarray) -> np.ndarray:
    """`[101]` values of one leaf of `length` values that the sub-model of each percent has."""
    held = np.ones(len(counts), np.int64)
    rest = length  # of the axes without channels
    for channels in groups.axes[path]:
        if channels is None:
            continue
        here = np.full(len(counts), (channels < 0).sum(), np.int64)
        for number, group in enumerate(groups.groups):
            own = ((channels >= group.first) & (channels < group.first + group.size)).sum()
            here += own // group.size * counts[:, number]
        held *= here
        rest //= len(channels)
    return held * rest


def channel_scores(groups: ChannelGroups, group: ChannelGroup, leaves: Mapping[str, Any]) -> Any:
    """l1 norms `[size]` of a group's channels.

    Args:
      leaves: the params by path, NumPy's or JAX's arrays.
    """
    total: Any = 0.0
    found: dict[str, list[tuple[int, np.ndarray]]] = {}
    for path, axis, places in groups.places(group):
        if path in leaves and (group.recurrent or (path, axis) in group.outputs):
            found.setdefault(path, []).append((axis, places))
    for path, own in found.items():
        size = abs(leaves[path])
        for axis, places in own:
            others = tuple(k for k in range(size.ndim) if k != axis)
            total = total + size.sum(others)[places].sum(1)
        for number, (axis, places) in enumerate(own):
            for other, there in own[number + 1 :]:  # what stands on both axes counts once
                total = total - _both(size, axis, places, other, there)
    return total


def _both(size: Any, axis: int, places: np.ndarray, other: int, there: np.ndarray) -> Any:
    """Sums `[channels]` of the values that belong to a channel along two axes."""
    order = (axis, other, *(k for k in range(size.ndim) if k not in (axis, other)))
    values = size.transpose(order)[places[:, :, None], there[:, None, :]]
    return values.reshape(len(places), -1).sum(1)


def _largest(groups: ChannelGroups, scores: Any, counts: Any) -> Any:
    """Which channels `[n]` are the `counts` `[groups]` largest of their groups, the first ones of equal scores."""
    import jax.numpy as jnp
    from jax import lax

    sizes = [group.size for group in groups.groups]
    group = jnp.asarray(np.repeat(np.arange(len(sizes)), sizes), jnp.int32)
    place = jnp.asarray(np.concatenate([np.arange(size) for size in sizes]), jnp.int32)
    # one sort of all groups: each stays where it is
    *_, order = lax.sort((group, -scores, jnp.arange(len(group))), num_keys=2, is_stable=True)
    return jnp.zeros(len(group), bool).at[order].set(place < counts[group])


def _mask(axes: tuple[np.ndarray | None, ...], keep: Any, shape: tuple[int, ...]) -> Any:
    """The mask of a leaf: what keeps the channels of all its axes."""
    import jax.numpy as jnp

    mask = jnp.ones(shape, bool)
    for axis, channels in enumerate(axes):
        if channels is not None:
            mask &= keep[channels].reshape([-1 if k == axis else 1 for k in range(len(shape))])
    return mask

"""The sub-model seam: `SubmodelRule` says which values the sub-model of each density holds (NumPy only).

A rule is found once, by name (`choices.py`), and then fitted to one model. The fitted `Submodels` carry the sizes that
the clock charges and the device functions that make masks, so that nobody else needs to know which rule it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from prfl_jax.models.channel_groups import ChannelGroups
from prfl_jax.submodel.client_masks import ClientMasks
from prfl_jax.submodel.given import given
from prfl_jax.submodel.layers import Layer
from prfl_jax.submodel.scores import Importance
from prfl_jax.submodel.server_mask import PruningSettings, ServerMask
from prfl_jax.submodel.size import ModelSize
from prfl_jax.system.errors import UserError

Shapes = Mapping[str, tuple[int, ...]]
Arrays = tuple[Any, ...]  # NumPy's or JAX's, one a prunable leaf


def _no_channels() -> ChannelGroups:
    raise UserError("the channel groups of the model are not known; allowed: a rule that needs none")


@dataclasses.dataclass(frozen=True)
class Network:
    """The model that a rule is fitted to.

    Attributes:
      shapes: of all leaves but the state's, by path, in the order of `jax.tree.leaves`.
      size: of the full model, with the leaves that the rule may mask as `layers`.
      layers: the network's layers from input to output; raises `UserError` for a model whose layers are not known.
      channels: its channel groups; raises `UserError` for a model without.
      masked: paths of the leaves that the rule may mask, in the order of `jax.tree.leaves`; None: those of `shapes`.
      order: paths of the leaves that products read, in the order of the forward pass.
    """

    shapes: Shapes
    size: ModelSize
    layers: Callable[[], tuple[Layer, ...]]
    channels: Callable[[], ChannelGroups] = _no_channels
    masked: tuple[str, ...] | None = None
    order: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Submodels:
    """The sub-models of one rule for one model.

    Attributes:
      size: what the sub-model of each density costs.
      levels: int8, one array a prunable leaf: the smallest density (percent) that holds the value, where the
        architecture says it; None: every value is in every sub-model until the first pruning.
      masks: (levels, weights, percent) -> masks of a client that is dispatched now, under `jax.jit`: `weights` are the
        server's prunable leaves, `percent` a scalar int32. None: `level <= percent`.
      advance: levels -> levels of the next window, under `jax.jit`, called after each close; None: they stay.
      server_mask: how the mask that the server sends to all clients changes; None: masks follow from densities.
    """

    size: ModelSize
    levels: tuple[np.ndarray, ...] | None = None
    masks: Callable[[Arrays, Arrays, Any], Arrays] | None = None
    advance: Callable[[Arrays], Arrays] | None = None
    server_mask: ServerMask | None = None


class SubmodelRule:
    """How sub-models are chosen. A subclass says what it needs and implements `fit`.

    Attributes:
      initial_rounds: of an initial stage before training at most, where the config gives no number; 0: there is none.
      client_masks: how clients choose masks of their own; None: they have none.
    """

    initial_rounds: int = 0
    client_masks: ClientMasks | None = None

    @property
    def partial(self) -> bool:
        """Whether there are sub-models at all; False: every client has the full model."""
        return True

    @property
    def scored(self) -> bool:
        """Whether levels are computed anew from scores at each density decision (`scoring`)."""
        return False

    @property
    def channels(self) -> bool:
        """Whether values of all leaves, biases too, belong to some sub-models only."""
        return False

    @property
    def masks_state(self) -> bool:
        """Whether values of the model's state, such as running statistics, belong to some sub-models only."""
        return False

    @property
    def whole_channels(self) -> bool:
        """Whether a sub-model has a value exactly if it has the channels of all its axes, at least one of each group.

        The groups are those of `find_channels`; the client can then be trained in a narrower network.
        """
        return False

    @property
    def known_networks(self) -> bool:
        """Whether the layers must be known, as those of the built-in models are (`Network.layers`)."""
        return False

    @property
    def fixed_levels(self) -> bool:
        """Whether `Submodels.levels` hold during the whole run, so that a client can draw smaller widths from them."""
        return False

    @property
    def masks_of_clients(self) -> bool:
        """Whether each client has masks of its own, which it chooses (`LocalWork.own_masks`)."""
        return self.client_masks is not None

    @property
    def masks_by_density(self) -> bool:
        """Whether these follow from a density that a policy decides for the client."""
        return self.client_masks is not None and self.client_masks.by_density

    @property
    def server_masks(self) -> bool:
        """Whether the server sends all clients one mask, which changes in the run (`Submodels.server_mask`)."""
        return False

    @property
    def shared_mask(self) -> bool:
        """Whether that mask is the server's alone: all clients train under it, and have none of their own."""
        return self.server_masks and not self.masks_of_clients

    @property
    def counts_rounds(self) -> bool:
        """Whether the mask changes by a number of rounds that is known before (`pruning.rounds`)."""
        return False

    @property
    def first_stage(self) -> bool:
        """Whether a stage on one client's samples comes before window 1, of `initial_rounds` rounds at most."""
        return False

    def first_rounds(self, pruning: PruningSettings) -> int:
        """Rounds of that stage at most; 0: there is none."""
        most = pruning.initial_rounds
        return (self.initial_rounds if most is None else most) if self.first_stage else 0

    @property
    def evidence(self) -> Importance | None:
        """What the server gathers of the clients' gradients for its mask (`Importance.of_sums`); None: nothing."""
        return None

    def gradient_uploads(self, windows: int, pruning: PruningSettings) -> int:
        """Windows of so many in which each client uploads what `evidence` gathers."""
        return 0

    @property
    def by_magnitude(self) -> bool:
        """Whether a sub-model holds the weights of largest magnitude at its dispatch."""
        return False

    def scoring(self, importance: Importance) -> Callable[[Arrays, Arrays], Arrays] | None:
        """With `scored`: (weights, squares) -> scores, as in `Submodel.scores`."""
        return None

    def check(self, flat: Mapping[str, Any]) -> None:
        """Refuses a config, {dotted key: value}, whose other keys the rule cannot work with."""

    def fit(self, network: Network, name: str) -> Submodels:
        """The sub-models of `network`; `name` is what the config calls the rule, for the text of errors."""
        return Submodels(network.size)

    def check_fitted(self, size: ModelSize, pruning: PruningSettings) -> None:
        """Refuses settings of the group `pruning` that the rule cannot work with for a model of that size."""


class Nested(SubmodelRule):
    """Sub-models nested by the importance of single weights (PR-FL, Algorithm 1, line 23)."""

    @property
    def scored(self) -> bool:
        return True

    def scoring(self, importance: Importance) -> Callable[[Arrays, Arrays], Arrays]:
        """The scores that `submodel.importance` names."""
        return importance.scores


@dataclasses.dataclass(frozen=True)
class Submodel(SubmodelRule):
    """A rule from scores or from levels, as a plugin writes it; with neither, every client has the full model.

    Attributes:
      scores: (weights, squares) -> scores, all tuples of one float32 array a prunable leaf (those of rank 2 and more),
        in the leaf's shape. The higher a score, the smaller the densities that have the weight; below 0 counts as 0.
        `weights` are the server's; `squares` the mean squared gradient of each weight as `submodel.importance` gathers
        it, 0 where no arrival held it, or () for `weight`, which gathers none. Called under `jax.jit`. Each leaf first
        keeps its own best `density.min_density` share, the rest is chosen among all leaves.
      levels: {path: shape} -> {path: integers of that shape}, of all leaves: the smallest density (percent, 1 to 100)
        that has the value. A path that is left out is in every sub-model. No mask is sent: both sides know the rule.

    Raises:
      UserError: both are given.
    """

    scores: Callable[[Arrays, Arrays], Arrays] | None = None
    levels: Callable[[Shapes], Mapping[str, np.ndarray]] | None = None

    def __post_init__(self) -> None:
        if self.scores is not None and self.levels is not None:
            raise UserError("a Submodel has scores or levels, not both")

    @property
    def partial(self) -> bool:
        """Whether there are scores or levels."""
        return self.scored or self.channels

    @property
    def scored(self) -> bool:
        """Whether there are scores."""
        return self.scores is not None

    @property
    def channels(self) -> bool:
        """Whether there are levels."""
        return self.levels is not None

    @property
    def fixed_levels(self) -> bool:
        """Whether there are levels, which hold during the whole run."""
        return self.levels is not None

    def scoring(self, importance: Importance) -> Callable[[Arrays, Arrays], Arrays] | None:
        """Its own scores, whatever gathers the squares."""
        return self.scores

    def fit(self, network: Network, name: str) -> Submodels:
        """Levels and their sizes, or the sizes of nested sub-models."""
        if self.levels is None:
            return Submodels(network.size)
        return Submodels(*given(name, self.levels, network.shapes, network.size))

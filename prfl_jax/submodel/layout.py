"""`Layout`: which leaves of a model can be pruned, their shapes and sizes, and the conversion from and to trees."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from prfl_jax.models.build import Model, flat_paths
from prfl_jax.models.variables import STATE
from prfl_jax.submodel.size import ModelSize


@dataclasses.dataclass(frozen=True)
class Layout:
    """The prunable leaves of a params pytree, by position in `jax.tree.leaves`.

    Biases and everything else of rank 1 or 0 are never pruned (facts: biases are
    never pruned and always counted), except where whole channels go (`channels=True`).
    The model's state (`models.variables.STATE`) is never pruned, except with its channels (`state=True`); leaves that
    stay with clients never are. With `prune=False` nothing is: the full model.
    """

    paths: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    prunable: tuple[int, ...]
    treedef: Any

    @classmethod
    def of(
        cls,
        params: Any,
        prune: bool = True,
        channels: bool = False,
        stays: frozenset[str] = frozenset(),
        state: bool = False,
    ) -> Layout:
        """From params or their `ShapeDtypeStruct`s.

        Args:
          prune: whether anything is pruned.
          channels: whether whole channels are.
          stays: paths of leaves that are not sent.
          state: whether the state's leaves are pruned with the channels that they belong to.
        """
        named = flat_paths(params)
        shapes = tuple(tuple(leaf.shape) for leaf in named.values())
        may = [
            (state or not path.startswith(f"{STATE}/")) and path not in stays and (channels or len(shapes[i]) >= 2)
            for i, path in enumerate(named)
        ]
        prunable = tuple(i for i, is_weight in enumerate(may) if prune and is_weight)
        return cls(tuple(named), shapes, prunable, jax.tree.structure(params))

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all leaves but the state's, by path."""
        named = zip(self.paths, self.shapes, strict=True)
        return {path: shape for path, shape in named if not path.startswith(f"{STATE}/")}

    def sizes(self) -> tuple[int, ...]:
        """Weights of each prunable leaf."""
        return tuple(math.prod(self.shapes[i]) for i in self.prunable)

    def select(self, params: Any) -> tuple[jax.Array, ...]:
        """The prunable leaves, each flattened to its last axes: `[..., n]`."""
        leaves = jax.tree.leaves(params)
        out = []
        for i in self.prunable:
            lead = leaves[i].ndim - len(self.shapes[i])
            out.append(leaves[i].reshape(*leaves[i].shape[:lead], -1))
        return tuple(out)

    def prunable_leaves(self, params: Any) -> tuple[jax.Array, ...]:
        """The prunable leaves of one model, in their shapes."""
        leaves = jax.tree.leaves(params)
        return tuple(leaves[i] for i in self.prunable)

    def map_pruned(self, params: Any, per_leaf: tuple[Any, ...], function: Any) -> Any:
        """Applies `function(leaf, item)` to each prunable leaf with its item of `per_leaf`; others stay."""
        leaves = list(jax.tree.leaves(params))
        for i, item in zip(self.prunable, per_leaf, strict=True):
            leaves[i] = function(leaves[i], item)
        return jax.tree.unflatten(self.treedef, leaves)

    def leaves_at(self, params: Any, paths: Collection[str]) -> dict[str, Any]:
        """{path: leaf} of some leaves."""
        return {path: leaf for path, leaf in zip(self.paths, jax.tree.leaves(params), strict=True) if path in paths}

    def with_leaves(self, params: Any, leaves: Mapping[str, Any]) -> Any:
        """The params with some leaves replaced, by their paths."""
        named = zip(self.paths, jax.tree.leaves(params), strict=True)
        return jax.tree.unflatten(self.treedef, [leaves.get(path, leaf) for path, leaf in named])

    def model_size(
        self,
        model: Model,
        size_mb: float | None,
        min_density_percent: int,
        batch_size: int = 1,
        stays: frozenset[str] = frozenset(),
    ) -> ModelSize:
        """Counts for the clock; `size_mb` replaces 4 bytes a value by a paper's MB of the full model.

        Leaves that stay where they are (`stays`, by path) cost no bytes.
        FLOP are those of a sample in training batches of `batch_size`; of leaves that are never pruned they are a rest.
        """
        total = int(sum(math.prod(shape) for shape in self.shapes))
        layers = self.sizes()
        at_home = sum(math.prod(shape) for path, shape in zip(self.paths, self.shapes, strict=True) if path in stays)
        flop = model.flop.by_leaf(batch_size)
        layer_flop = tuple(flop.pop(self.paths[i], 0.0) for i in self.prunable)
        params = self.param_shapes()
        kernels = [i for i, path in enumerate(self.paths) if path in params and len(params[path]) >= 2]
        return ModelSize(
            layers=layers,
            fixed=total - sum(layers) - at_home,
            bytes_per_value=4.0 if size_mb is None else size_mb * 1e6 / total,
            layer_flop=layer_flop,
            min_percent=min_density_percent,
            kernels=tuple(math.prod(self.shapes[i]) for i in kernels),
            kernel_layers=tuple(self.prunable.index(i) for i in kernels if i in self.prunable),
            rest_flop=sum(flop.values()) + model.flop.rest_at(batch_size),
            state=sum(
                math.prod(shape)
                for path, shape in zip(self.paths, self.shapes, strict=True)
                if path.startswith(f"{STATE}/") and path not in stays
            ),
        )


def bits_length(n: int) -> int:
    """Bytes of a packed mask of n weights."""
    return -(-n // 8)


def empty_bits(layout: Layout, clients: int) -> tuple[jax.Array, ...]:
    """All-zero packed masks, one `[M, ceil(n/8)]` uint8 array a prunable leaf."""
    return tuple(jnp.zeros((clients, bits_length(n)), jnp.uint8) for n in layout.sizes())

"""Checks levels (the smallest density that holds each value) that a rule gives once for any model; sizes from them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from prfl_jax import registry
from prfl_jax.submodel.size import ModelSize
from prfl_jax.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class GivenSize(ModelSize):
    """Sizes of sub-models given once by levels; `layers` are all leaves.

    Args:
      held: `[101][leaves]`, how many values of each leaf a sub-model of 0 to 100 percent has.
      held_state: `[101]`, how many values of the state it has; () where each has all of them.
    """

    held: tuple[tuple[int, ...], ...] = ()
    held_state: tuple[int, ...] = ()

    def count(self, percent: int) -> int:
        """Values of the sub-model of that density (percent)."""
        if not 1 <= percent <= 100:
            raise ValueError(f"percent {percent} is not in 1..100")
        return sum(self.held[percent])

    def state_count(self, percent: int) -> int:
        """Values of the state that the sub-model of that density (percent) has."""
        return self.held_state[percent] if self.held_state else self.state

    def mask_bytes(self, percent: int) -> int:
        """0: the density (percent) determines the mask."""
        return 0

    def density_bytes(self, percent: int) -> int:
        """A sub-model of that density (percent) has its own size by either rule."""
        return self.value_bytes(percent)

    def held_kernels(self, percent: int) -> tuple[float, ...]:
        """Weights of each kernel that the sub-model of that density (percent) has."""
        return tuple(float(self.held[percent][layer]) for layer in self.kernel_layers)

    def flop_share(self, percent: int) -> float:
        """Share of the leaves' forward FLOP that the values at that density (percent) have."""
        here = zip(self.layer_flop, self.held[percent], self.layers, strict=True)
        return sum(flop * held / size for flop, held, size in here) / (sum(self.layer_flop) or 1.0)


def given(
    name: str,
    levels: Callable[[Mapping[str, tuple[int, ...]]], Mapping[str, np.ndarray]],
    shapes: Mapping[str, tuple[int, ...]],
    size: ModelSize,
) -> tuple[GivenSize, tuple[np.ndarray, ...]]:
    """Sizes and levels of a plugin that has `levels` (`Submodel.levels`).

    Args:
      name: `submodel.name`, for the text of an error.
      shapes: of all leaves but the state's, by path, in the order of `jax.tree.leaves`.
      size: of the full model; `size.layers` are these leaves, in that order, and `size.fixed` are values of the state.

    Returns:
      The sizes, and int8 levels in the leaves' shapes, in their order.

    Raises:
      UserError: a path that is no leaf, another shape, or what is no whole number from 1 to 100.
    """
    key = "config.submodel.name"
    found = registry.call(key, name, levels, dict(shapes))
    if not isinstance(found, Mapping) or found.keys() - shapes.keys():
        strange = sorted(map(str, found.keys() - shapes.keys())) if isinstance(found, Mapping) else type(found).__name__
        raise UserError(f"{key}: levels of {name!r} give {strange}; allowed: a dict with paths among {list(shapes)}")
    checked = []
    for path, shape in shapes.items():
        leaf = np.asarray(found.get(path, np.ones(shape, np.int8)))
        if leaf.shape != tuple(shape) or not np.issubdtype(leaf.dtype, np.integer):
            raise UserError(
                f"{key}: levels of {name!r} for {path} are {leaf.dtype} {leaf.shape}; allowed: integers {tuple(shape)}"
            )
        if leaf.size and not 1 <= leaf.min() <= leaf.max() <= 100:
            raise UserError(
                f"{key}: levels of {name!r} for {path} are from {leaf.min()} to {leaf.max()}; allowed: 1 to 100"
            )
        checked.append(leaf.astype(np.int8))
    counts = [np.cumsum(np.bincount(leaf.reshape(-1), minlength=101)) for leaf in checked]
    sizes = GivenSize(
        layers=tuple(math.prod(shape) for shape in shapes.values()),
        fixed=size.fixed,
        bytes_per_value=size.bytes_per_value,
        layer_flop=size.layer_flop,
        rest_flop=size.rest_flop,
        kernels=size.kernels,
        kernel_layers=size.kernel_layers,
        held=tuple(tuple(int(count[percent]) for count in counts) for percent in range(101)),
    )
    return sizes, tuple(checked)

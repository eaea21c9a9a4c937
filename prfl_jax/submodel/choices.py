"""The sub-model seam: which weights the sub-model of each density has (NumPy only).

Sub-models are nested: what a density has, every larger density has too. So one level a weight, the smallest density
(percent) that has it, describes them all. A choice says where levels come from: from scores, decided anew with every
density decision, or from the architecture, given once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from prfl_jax import registry
from prfl_jax.submodel.size import ModelSize
from prfl_jax.system.errors import UserError

Shapes = Mapping[str, tuple[int, ...]]
Arrays = tuple[Any, ...]  # NumPy's or JAX's, one a prunable leaf


@dataclasses.dataclass(frozen=True)
class Submodel:
    """One choice: scores, or levels, or neither (every client has the full model).

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


def squares_alone(weights: Arrays, squares: Arrays) -> Arrays:
    """The mean squared gradients."""
    return squares


def weight_alone(weights: Arrays, squares: Arrays) -> Arrays:
    """|w|."""
    return tuple(abs(weight) for weight in weights)


def weight_times_squares(weights: Arrays, squares: Arrays) -> Arrays:
    """|w| times the mean squared gradient."""
    return tuple(abs(weight) * square for weight, square in zip(weights, squares, strict=True))


SCORES: dict[str, Callable[[Arrays, Arrays], Arrays]] = {  # by `submodel.importance`
    "server_sq_grad": squares_alone,
    "client_sq_grad": squares_alone,
    "weight": weight_alone,
    "product": weight_times_squares,
}
# values of `submodel.name`
SUBMODELS = ("nested", "leading", "full")


def find_submodel(config: Any) -> Submodel:
    """The choice that the group `submodel` of a config names.

    `leading` has levels too, those of a known network (`leading.py`), so it is none of these.

    Raises:
      UserError: an object of a user's own that is no `Submodel`, or cannot be loaded.
    """
    if config.name == "nested":
        return Submodel(scores=SCORES[config.importance])
    if config.name in SUBMODELS:
        return Submodel()
    key = "config.submodel.name"
    found = registry.find_object(config.name, key)
    if not isinstance(found, Submodel) or (found.scores is None and found.levels is None):
        raise registry.wrong(key, config.name, found, "a prfl_jax.submodel.Submodel with scores or levels")
    return found


@dataclasses.dataclass(frozen=True)
class GivenSize(ModelSize):
    """Sizes of sub-models given once by levels; `layers` are all leaves.

    Args:
      held: `[101][leaves]`, how many values of each leaf a sub-model of 0 to 100 percent has.
    """

    held: tuple[tuple[int, ...], ...] = ()

    def count(self, percent: int) -> int:
        """Values of the sub-model of that density (percent)."""
        if not 1 <= percent <= 100:
            raise ValueError(f"percent {percent} is not in 1..100")
        return sum(self.held[percent])

    def mask_bytes(self, percent: int) -> int:
        """None: the density (percent) says it all."""
        return 0

    def density_bytes(self, percent: int) -> int:
        """A sub-model of that density (percent) has its own size by either rule."""
        return self.value_bytes(percent)

    def flop_share(self, percent: int) -> float:
        """Share of the leaves' forward FLOP that the values at that density (percent) have."""
        here = zip(self.layer_flop, self.held[percent], self.layers, strict=True)
        return sum(flop * held / size for flop, held, size in here) / (sum(self.layer_flop) or 1.0)


def given(
    name: str,
    choice: Submodel,
    shapes: Shapes,
    bytes_per_value: float,
    leaf_flop: Mapping[str, float],
    rest_flop: float = 0.0,
) -> tuple[GivenSize, tuple[np.ndarray, ...]]:
    """Sizes and levels of a choice of one's own that has `levels`.

    Args:
      name: `submodel.name`, for the text of an error.
      shapes: of all leaves, by path, in the order of `jax.tree.leaves`.
      bytes_per_value: what the clock charges for one value.
      leaf_flop: forward FLOP per sample, by path.
      rest_flop: forward FLOP per sample of products that read no leaf.

    Returns:
      The sizes, and int8 levels in the leaves' shapes, in their order.

    Raises:
      UserError: a path that is no leaf, another shape, or what is no whole number from 1 to 100.
    """
    assert choice.levels is not None
    key = "config.submodel.name"
    found = registry.call(key, name, choice.levels, dict(shapes))
    if not isinstance(found, Mapping) or found.keys() - shapes.keys():
        strange = sorted(map(str, found.keys() - shapes.keys())) if isinstance(found, Mapping) else type(found).__name__
        raise UserError(f"{key}: levels of {name!r} give {strange}; allowed: a dict with paths among {list(shapes)}")
    levels = []
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
        levels.append(leaf.astype(np.int8))
    counts = [np.cumsum(np.bincount(leaf.reshape(-1), minlength=101)) for leaf in levels]
    size = GivenSize(
        layers=tuple(math.prod(shape) for shape in shapes.values()),
        fixed=0,
        bytes_per_value=bytes_per_value,
        layer_flop=tuple(leaf_flop[path] for path in shapes),
        rest_flop=rest_flop,
        held=tuple(tuple(int(count[percent]) for count in counts) for percent in range(101)),
    )
    return size, tuple(levels)

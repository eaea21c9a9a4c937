"""The server's accumulators of squared gradients, from which importance scores for pruning are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prfl_jax import registry
from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.rule import SubmodelRule
from prfl_jax.submodel.scores import IMPORTANCES, Importance
from prfl_jax.system.errors import UserError


class Squares(NamedTuple):
    """Accumulators over the prunable leaves, in their shapes; empty tuples where the importance needs none.

    Attributes:
      total: float32, the sum of squared gradients; with `Importance.of_sums` a scalar too, of what is never pruned.
      held: int32, how many arrivals held the weight; () with `of_sums`, which asks for no mean.
    """

    total: tuple[jax.Array, ...]
    held: tuple[jax.Array, ...]


def init_importance(layout: Layout, kind: Importance | None) -> Squares:
    """Zeros; empty tuples for an importance that gathers nothing and for None (nothing is pruned)."""
    if kind is None or not kind.gathers:
        return Squares((), ())
    shapes = [layout.shapes[i] for i in layout.prunable]
    if kind.of_sums:
        return Squares(tuple(jnp.zeros(s, jnp.float32) for s in (*shapes, ())), ())
    return Squares(tuple(jnp.zeros(s, jnp.float32) for s in shapes), tuple(jnp.zeros(s, jnp.int32) for s in shapes))


def add_arrival(importance: Squares, squares: tuple[jax.Array, ...], masks: tuple[jax.Array, ...]) -> Squares:
    """Adds one arrival's squared gradients `squares` (exactly 0 outside its `masks`, where holders are counted)."""
    return Squares(
        tuple(t + s for t, s in zip(importance.total, squares, strict=True)),
        tuple(h + m.astype(jnp.int32) for h, m in zip(importance.held, masks, strict=bool(importance.held))),
    )


def mean_squares(importance: Squares) -> tuple[jax.Array, ...]:
    """Each weight's mean over the arrivals that held it, in the leaves' shapes; () where nothing is gathered."""
    return tuple(t / jnp.maximum(h, 1).astype(t.dtype) for t, h in zip(importance.total, importance.held, strict=True))


def check_scores(config: Any, choice: SubmodelRule, shapes: Sequence[tuple[int, ...]]) -> None:
    """Refuses a `scores` that gives other shapes than those of the prunable leaves; computes nothing.

    Args:
      config: the group `submodel` of a config.

    Raises:
      UserError: naming what it gives; or it cannot be traced.
    """
    importance = IMPORTANCES.find(config.importance)
    scores = choice.scoring(importance)
    if scores is None or not registry.is_own(config.name):
        return
    key, leaves = "config.submodel.name", tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    squares = leaves if importance.gathers else ()
    found = registry.call(key, config.name, jax.eval_shape, scores, leaves, squares)
    got = [getattr(leaf, "shape", leaf) for leaf in found] if isinstance(found, tuple | list) else type(found).__name__
    if got != list(shapes):
        raise UserError(f"{key}: scores of {config.name!r} are {got}; allowed: one array a leaf, {list(shapes)}")

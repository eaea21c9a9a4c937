"""Importance scores for pruning, kept by the server.

`server_sq_grad` (default) costs no bytes: each arrival adds ((w_sent - w_received) / lr)^2
and is divided by how many arrivals held the weight. `client_sq_grad` adds the squared
gradients of the client's own steps (what it must upload for them is charged by the
experiment). `weight` is |w| of the server model, `product` is |w| times
`server_sq_grad`'s mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prfl_jax import registry
from prfl_jax.submodel.choices import SCORES, Submodel
from prfl_jax.submodel.layout import Layout
from prfl_jax.system.errors import UserError

ACCUMULATING = ("server_sq_grad", "client_sq_grad", "product")


class Importance(NamedTuple):
    """Accumulators over the prunable leaves, in their shapes; empty tuples where the kind needs none."""

    total: tuple[jax.Array, ...]  # float32
    held: tuple[jax.Array, ...]  # int32: arrivals that held the weight


def init_importance(layout: Layout, kind: str | None) -> Importance:
    """Zeros, or nothing for `weight` and for full models."""
    if kind not in ACCUMULATING:
        return Importance((), ())
    shapes = [layout.shapes[i] for i in layout.prunable]
    return Importance(tuple(jnp.zeros(s, jnp.float32) for s in shapes), tuple(jnp.zeros(s, jnp.int32) for s in shapes))


def add_arrival(importance: Importance, squares: tuple[jax.Array, ...], masks: tuple[jax.Array, ...]) -> Importance:
    """Adds one arrival's squared gradients `squares` (exactly 0 outside its `masks`)."""
    return Importance(
        tuple(t + s for t, s in zip(importance.total, squares, strict=True)),
        tuple(h + m.astype(jnp.int32) for h, m in zip(importance.held, masks, strict=True)),
    )


def mean_squares(importance: Importance) -> tuple[jax.Array, ...]:
    """Each weight's mean over the arrivals that held it, in the leaves' shapes; () where nothing is gathered."""
    return tuple(t / jnp.maximum(h, 1).astype(t.dtype) for t, h in zip(importance.total, importance.held, strict=True))


def importance_scores(importance: Importance, kind: str, weights: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """Scores >= 0 in the leaves' shapes; `weights` are the server's prunable leaves."""
    return SCORES[kind](weights, mean_squares(importance))


def check_scores(config: Any, choice: Submodel, shapes: Sequence[tuple[int, ...]]) -> None:
    """Refuses a `scores` that gives other shapes than those of the prunable leaves; computes nothing.

    Args:
      config: the group `submodel` of a config.

    Raises:
      UserError: naming what it gives; or it cannot be traced.
    """
    assert choice.scores is not None
    if not registry.is_own(config.name):
        return
    key, leaves = "config.submodel.name", tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    squares = leaves if config.importance in ACCUMULATING else ()
    found = registry.call(key, config.name, jax.eval_shape, choice.scores, leaves, squares)
    got = [getattr(leaf, "shape", leaf) for leaf in found] if isinstance(found, tuple | list) else type(found).__name__
    if got != list(shapes):
        raise UserError(f"{key}: scores of {config.name!r} are {got}; allowed: one array a leaf, {list(shapes)}")

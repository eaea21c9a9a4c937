"""Importance scores for pruning, kept by the server.

`server_sq_grad` (default) costs no bytes: each arrival adds ((w_sent - w_received) / lr)^2
and is divided by how many arrivals held the weight. `client_sq_grad` adds the squared
gradients of the client's own steps (what it must upload for them is charged by the
experiment). `weight` is |w| of the server model, `product` is |w| times
`server_sq_grad`'s mean.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from prfl_jax.submodel.layout import Layout

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


def importance_scores(importance: Importance, kind: str, weights: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """Scores >= 0 in the leaves' shapes; `weights` are the server's prunable leaves."""
    if kind == "weight":
        return tuple(jnp.abs(w) for w in weights)
    mean = tuple(t / jnp.maximum(h, 1).astype(t.dtype) for t, h in zip(importance.total, importance.held, strict=True))
    if kind == "product":
        return tuple(jnp.abs(w) * m for w, m in zip(weights, mean, strict=True))
    return mean

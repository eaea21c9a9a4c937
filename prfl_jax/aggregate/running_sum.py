"""The running sum of weighted arrivals on the device: entering arrivals, and the server step at a window's close."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from prfl_jax.aggregate.maskfedavg import add_weighted


def add(total: Any, models: Any, here: jax.Array, coefficient: jax.Array, sent: Any = None) -> Any:
    """`total + sum_k c_k x_k` of one arrival, or of a group of G.

    Args:
      models: w_k, stacked `[G, ...]` in a group.
      here: bool, or `[G]`; where it is False (padding), 0 is added.
      coefficient: c_k, or `[G]`.
      sent: w_sent of each: x_k is w_k - w_sent. None: x_k is w_k.
    """
    summand = models if sent is None else jax.tree.map(jnp.subtract, models, sent)
    summand = jax.tree.map(lambda x: jnp.where(along(here, x), x, 0), summand)
    if here.ndim == 0:
        summand, coefficient = jax.tree.map(lambda x: x[None], summand), coefficient[None]
    return add_weighted(total, summand, coefficient)


def close(params: Any, total: Any, keep: jax.Array) -> tuple[Any, Any]:
    """(keep W + the sum, the next sum, which is 0)."""
    new = jax.tree.map(lambda w, summed: keep * w + summed, params, total)
    return new, jax.tree.map(jnp.zeros_like, total)


def along(flags: jax.Array, values: jax.Array) -> jax.Array:
    """Flags of one client, or of several `[G]`, with axes of size 1 appended, to broadcast over their values."""
    return flags.reshape(*flags.shape, *[1] * (values.ndim - flags.ndim))

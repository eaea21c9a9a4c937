"""Device functions of MaskFedAvg (Algorithm 2, Eq. 6-11) and of FedAvg over the buffer; clients stacked as `[M, ...]`.

One fused loop over clients reads each stored model once; the mask accumulator lives
only inside the fusion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.masks import unpack
from prfl_jax.system.host_offload import fetch

UNROLL_LIMIT = 32  # clients; above it a loop keeps the program small


def sum_clients(count: int, term: Any, start: Any) -> Any:
    """sum_i term(i), unrolled into one fusion for few clients."""
    if count > UNROLL_LIMIT:
        return lax.fori_loop(0, count, lambda i, acc: jax.tree.map(jnp.add, acc, term(i)), start)
    for i in range(count):
        start = jax.tree.map(jnp.add, start, term(i))
    return start


def maskfedavg(
    layout: Layout,
    params: Any,
    buffer: Any,
    bits: tuple[jax.Array, ...],
    weights: jax.Array,
    server_lr: jax.Array | float = 1.0,
    across: Callable[[Any], Any] = lambda sums: sums,
) -> Any:
    """The next server model.

    Args:
      params: W_mask^{n-1}, a pytree.
      buffer: the clients' models `[M, ...]`, finite.
      bits: masks of the weights that count, packed `[M, ceil(n/8)]` a prunable leaf.
      weights: p_i^n float32 `[M]` (Eq. 7); 0 for slots that do not count. All 0: W stays.
      server_lr: eta_g (Eq. 11).
      across: sums over the devices, where each has some of the clients.

    Returns:
      W_mask^n. A weight that no counted client holds keeps its old value, to the bit (Eq. 10).
    """
    clients = weights.shape[0]
    leaves, stacked = jax.tree.leaves(params), jax.tree.leaves(buffer)
    position = {leaf: k for k, leaf in enumerate(layout.prunable)}
    out = []
    for i, (old, models) in enumerate(zip(leaves, stacked, strict=True)):
        n = old.size
        if i in position:
            packed = bits[position[i]]

            def term(c: Any, models: jax.Array = models, packed: jax.Array = packed, n: int = n) -> Any:
                weight = jnp.where(unpack(packed[c], n), weights[c], 0.0)
                return weight * fetch(models, c).reshape(-1), weight

            zeros = jnp.zeros(n, old.dtype)
            w_acc, mask_acc = across(sum_clients(clients, term, (zeros, zeros)))  # Eq. 8, Eq. 9
        else:
            w_acc = sum_clients(
                clients, lambda c, models=models: weights[c] * fetch(models, c).reshape(-1), jnp.zeros(n, old.dtype)
            )
            w_acc, mask_acc = across((w_acc, jnp.sum(weights)))
        local = w_acc / jnp.where(mask_acc > 0, mask_acc, 1.0)
        before = old.reshape(-1)
        new = mixed(before, local, server_lr)
        out.append(jnp.where(mask_acc > 0, new, before).reshape(old.shape))  # Eq. 10
    return jax.tree.unflatten(layout.treedef, out)


def mixed(old: jax.Array, local: jax.Array, server_lr: jax.Array | float) -> jax.Array:
    """Eq. 11; `local` to the bit where `server_lr` is 1 (0 times a weight adds nothing)."""
    return (1.0 - server_lr) * old + server_lr * local


def fedavg(
    params: Any,
    buffer: Any,
    weights: jax.Array,
    server_lr: jax.Array | float = 1.0,
    across: Callable[[Any], Any] = lambda sums: sums,
) -> Any:
    """FedAvg(B): the plain weighted mean of the buffer, pruned weights counting as 0.

    Algorithm 1 line 15; the paper's second server curve. With all weights 0, `params`.
    `server_lr` mixes the mean in as in Eq. 11; `across` is as in `maskfedavg`.
    """
    total = across(jnp.sum(weights))

    def of_leaf(old: jax.Array, models: jax.Array) -> jax.Array:
        acc = across(sum_clients(weights.shape[0], lambda c: weights[c] * fetch(models, c), jnp.zeros_like(old)))
        mean = acc / jnp.where(total > 0, total, 1.0)
        return jnp.where(total > 0, mixed(old, mean, server_lr), old)

    return jax.tree.map(of_leaf, params, buffer)


def add_weighted(total: Any, models: Any, weights: jax.Array) -> Any:
    """`total + sum_i weights_i models_i` over models stacked as `[M, ...]`, all finite."""

    def of_leaf(start: jax.Array, stack: jax.Array) -> jax.Array:
        return sum_clients(weights.shape[0], lambda c: weights[c] * stack[c], start)

    return jax.tree.map(of_leaf, total, models)

"""Masks of sub-models: levels (one int8 per weight) for what is sent, packed bits for what a slot holds.

A level is the smallest density (percent) whose sub-model includes the weight, so a
client's mask is `level <= percent` (nested sub-models, PR-FL). A slot keeps the mask
it was sent as bits, because levels change meaning at the next pruning. Masks are
explicit and never inferred from `w != 0` (the paper's Eq. 6 does that; both agree
where no weight is zero).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from prfl_jax.submodel.layout import Layout, bits_length


def pack(mask: jax.Array) -> jax.Array:
    """Booleans `[n]` to bits `[ceil(n/8)]` uint8.

    Bit k of byte j is weight `k * ceil(n/8) + j`: unpacking then reads and writes
    contiguously, which vectorises on CPU where eight neighbours a byte do not.
    """
    n = mask.shape[-1]
    stride = bits_length(n)
    padded = jnp.pad(mask, (0, 8 * stride - n)).reshape(8, stride).astype(jnp.uint8)
    return jnp.sum(padded << jnp.arange(8, dtype=jnp.uint8)[:, None], axis=0, dtype=jnp.uint8)


def bit_planes(bits: jax.Array) -> jax.Array:
    """Bits `[b]` to 0 and 1 `[8, b]` uint8, row after row in the order of the weights, with the padding."""
    return (bits[None, :] >> jnp.arange(8, dtype=jnp.uint8)[:, None]) & jnp.uint8(1)


def unpack(bits: jax.Array, n: int) -> jax.Array:
    """Bits `[ceil(n/8)]` to booleans `[n]`; the inverse of `pack`."""
    return bit_planes(bits).reshape(-1)[:n].astype(jnp.bool_)


def unpack_masks(layout: Layout, bits: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """Bits of one slot to boolean masks in the leaves' shapes."""
    return tuple(
        unpack(b, n).reshape(layout.shapes[i]) for b, n, i in zip(bits, layout.sizes(), layout.prunable, strict=True)
    )


def level_masks(levels: tuple[jax.Array, ...], percent: jax.Array) -> tuple[jax.Array, ...]:
    """The masks of a client of that density: `level <= percent`."""
    return tuple(level <= percent.astype(jnp.int8) for level in levels)


def apply_masks(layout: Layout, params: Any, masks: tuple[jax.Array, ...]) -> Any:
    """`W * mask` on prunable leaves (a select, so that masked values are exactly 0); others stay."""
    return layout.map_pruned(params, masks, lambda w, m: jnp.where(m, w, jnp.zeros((), w.dtype)))


def put_back(layout: Layout, params: Any, masks: tuple[jax.Array, ...], whole: Any) -> Any:
    """A sub-model put back into a whole model: on prunable leaves `whole` where the mask is 0 (FedMP, Eqs. 2 and 4)."""
    leaves = jax.tree.leaves(whole)
    items = tuple((mask, leaves[i]) for mask, i in zip(masks, layout.prunable, strict=True))
    return layout.map_pruned(params, items, lambda w, item: jnp.where(item[0], w, item[1]))


def full_levels(layout: Layout) -> tuple[jax.Array, ...]:
    """Levels before the first pruning: every weight belongs to every sub-model (level 1)."""
    return tuple(jnp.ones(layout.shapes[i], jnp.int8) for i in layout.prunable)

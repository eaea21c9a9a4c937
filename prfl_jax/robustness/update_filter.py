"""What the server does to a client's update when it arrives, before anything else sees it: reject, clip, add noise."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from prfl_jax.robustness.attacks import normals_like
from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.masks import apply_masks

TAKEN, CLIPPED, REJECTED = range(3)  # verdicts


@dataclasses.dataclass(frozen=True)
class UpdateFilter:
    """The check of each update w - w_sent.

    Args:
      clip_norm: C, the largest Euclidean norm of an update over the weights it holds; longer ones are shortened to it,
        as in Sun et al. 2019 and McMahan et al. 2018. None: no limit.
      noise_multiplier: z; normal noise of deviation z C is added to each weight the update holds, once (McMahan et al.
        2018, at the update instead of the sum). 0: none.
      left_out: what is rejected is handed on as not a number, for a kernel that leaves such values out; else as the
        model that was sent, an update of nothing.
    """

    clip_norm: float | None
    noise_multiplier: float
    left_out: bool

    def __call__(
        self, layout: Layout, sent: Any, told: Any, masks: tuple[jax.Array, ...], key: jax.Array
    ) -> tuple[Any, jax.Array]:
        """(the update as it counts, verdict int8).

        An update whose norm is not finite is rejected.
        """
        update = jax.tree.map(jnp.subtract, told, sent)
        norm = jnp.sqrt(sum(jnp.sum(u * u) for u in jax.tree.leaves(update)))
        finite = jnp.isfinite(norm)
        limit = math.inf if self.clip_norm is None else self.clip_norm
        verdict = jnp.where(finite, jnp.where(norm > limit, CLIPPED, TAKEN), REJECTED)
        share = jnp.where(verdict == CLIPPED, limit / jnp.maximum(norm, 1e-30), 0.0)
        whole = verdict == TAKEN  # stays to the bit
        out = jax.tree.map(
            lambda before, after, u: jnp.where(whole, after, before + share * jnp.where(finite, u, 0.0)),
            sent, told, update,
        )  # fmt: skip
        if self.noise_multiplier:
            deviation = self.noise_multiplier * limit
            noise = apply_masks(layout, normals_like(key, sent), masks)
            out = jax.tree.map(lambda w, z: w + deviation * z, out, noise)
        if self.left_out:
            out = jax.tree.map(lambda w: jnp.where(finite, w, jnp.nan), out)
        return out, verdict.astype(jnp.int8)

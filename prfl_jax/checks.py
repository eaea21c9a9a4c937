"""What the server does to a client's update when it arrives, before anything else sees it: reject, clip, add noise."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from prfl_jax.lies import normals_like
from prfl_jax.submodel.layout import Layout

TAKEN, CLIPPED, REJECTED = range(3)  # verdicts


@dataclasses.dataclass(frozen=True)
class Check:
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
        verdict = jnp.where(finite, TAKEN, REJECTED)
        share = jnp.where(finite, 1.0, 0.0)
        if self.clip_norm is not None:
            verdict = jnp.where(finite & (norm > self.clip_norm), CLIPPED, verdict)
            share = jnp.where(finite, jnp.minimum(1.0, self.clip_norm / jnp.maximum(norm, 1e-30)), 0.0)
        whole = verdict == TAKEN  # stays to the bit
        out = jax.tree.map(
            lambda before, after, u: jnp.where(whole, after, before + share * jnp.where(finite, u, 0.0)),
            sent, told, update,
        )  # fmt: skip
        if self.noise_multiplier:
            deviation = self.noise_multiplier * float(self.clip_norm or 0.0)
            noise = normals_like(key, sent)
            if masks:
                noise = layout.map_pruned(noise, masks, lambda z, m: jnp.where(m, z, 0.0))
            out = jax.tree.map(lambda w, z: w + deviation * z, out, noise)
        if self.left_out:
            out = jax.tree.map(lambda w: jnp.where(finite, w, jnp.nan), out)
        return out, verdict.astype(jnp.int8)

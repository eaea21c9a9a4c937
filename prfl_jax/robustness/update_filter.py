"""The server's filter of arriving updates, before anything else uses them: it rejects, clips and adds noise."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.masks import apply_masks

ACCEPTED, CLIPPED, REJECTED = range(3)  # verdicts


@dataclasses.dataclass(frozen=True)
class UpdateFilter:
    """Accepts, clips or rejects each update w - w_sent.

    Args:
      clip_norm: C, the largest Euclidean norm of an update over the weights it holds; longer updates are scaled down to
        it, as in Sun et al. 2019 and McMahan et al. 2018. None: no limit.
      noise_multiplier: z; normal noise of deviation z C is added to each weight the update holds, once (McMahan et al.
        2018, at the update instead of the sum). 0: none.
      rejected_as_nan: rejected updates become NaN, for a robust aggregation, which leaves such values out. Otherwise a
        rejected update becomes the model that was sent, an update of 0.
    """

    clip_norm: float | None
    noise_multiplier: float
    rejected_as_nan: bool

    def __call__(
        self, layout: Layout, sent: Any, received: Any, masks: tuple[jax.Array, ...], key: jax.Array
    ) -> tuple[Any, jax.Array]:
        """Filters the model that one client sent back.

        Returns:
          (the model as the server counts it, verdict int8). An update whose norm is not finite is rejected.
        """
        update = jax.tree.map(jnp.subtract, received, sent)
        norm = jnp.sqrt(sum(jnp.sum(u * u) for u in jax.tree.leaves(update)))
        finite = jnp.isfinite(norm)
        limit = math.inf if self.clip_norm is None else self.clip_norm
        verdict = jnp.where(finite, jnp.where(norm > limit, CLIPPED, ACCEPTED), REJECTED)
        share = jnp.where(verdict == CLIPPED, limit / jnp.maximum(norm, 1e-30), 0.0)
        accepted = verdict == ACCEPTED  # then the model stays as it is, to the bit
        out = jax.tree.map(
            lambda before, after, u: jnp.where(accepted, after, before + share * jnp.where(finite, u, 0.0)),
            sent, received, update,
        )  # fmt: skip
        if self.noise_multiplier:
            deviation = self.noise_multiplier * limit
            noise = apply_masks(layout, normals_like(key, sent), masks)
            out = jax.tree.map(lambda w, z: w + deviation * z, out, noise)
        if self.rejected_as_nan:
            out = jax.tree.map(lambda w: jnp.where(finite, w, jnp.nan), out)
        return out, verdict.astype(jnp.int8)


def normals_like(key: jax.Array, tree: Any) -> Any:
    """N(0, 1) for each weight of a pytree, in the leaves' shapes."""
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(treedef, [jax.random.normal(k, w.shape) for k, w in zip(keys, leaves, strict=True)])

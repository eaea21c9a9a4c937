"""FIARSE's local work (Wu et al. 2024): at each step only weights at or above a threshold count, by their present |w|.

The threshold theta of a layer is the smallest magnitude that the client was sent of it, 0 where it was sent the whole
layer. The gradient also goes through the mask, as in the authors' code: it is multiplied by
1 + 2 theta |w| / (|w| + theta)^2. A weight that falls below the threshold keeps its value for the rest of the round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prfl_jax.local.work import LocalInput, LocalResult, LocalTask

if TYPE_CHECKING:
    import jax


def magnitude_round(task: LocalTask, given: LocalInput) -> LocalResult:
    """SGD under the masks of the present weights."""
    import jax
    import jax.numpy as jnp

    from prfl_jax.local.sgd import StepMasks, sgd_round

    leaves = jax.tree.leaves(given.params)
    thresholds = []
    for i, mask in zip(task.layout.prunable, given.masks, strict=True):
        smallest = jnp.min(jnp.where(mask, jnp.abs(leaves[i]), jnp.inf))
        thresholds.append(jnp.where(jnp.all(mask) | ~jnp.any(mask), 0.0, smallest))

    def anew(weights: tuple[jax.Array, ...], number: jax.Array) -> StepMasks:
        masks, factors = [], []
        for weight, mask, theta in zip(weights, given.masks, thresholds, strict=True):
            size = jnp.abs(weight)
            ratio = theta / jnp.maximum(size, jnp.maximum(theta, jnp.finfo(size.dtype).tiny))  # 0 to 1
            masks.append(mask & (size >= theta))
            factors.append(1.0 + 2.0 * ratio / (1.0 + ratio) ** 2)
        return StepMasks(tuple(masks), tuple(factors))

    return sgd_round(task, given, anew)

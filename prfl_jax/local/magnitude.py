"""FIARSE's local work (Wu et al. 2024): each step trains the weights whose present |w| reaches their layer's threshold.

The threshold theta is the smallest magnitude that the client was sent of the layer, or 0 if it was sent all of it.
As in the authors' code, the gradient also goes through the mask: it is multiplied by 1 + 2 theta |w| / (|w| + theta)^2.
A weight that falls below the threshold keeps its value for the rest of the round.
"""

from __future__ import annotations

from prfl_jax.local.work import LocalInput, LocalResult, LocalTask


def magnitude_round(task: LocalTask, given: LocalInput) -> LocalResult:
    """SGD whose steps make their masks from the present weights."""
    import jax
    import jax.numpy as jnp

    from prfl_jax.local.sgd import StepMasks, sgd_round

    def threshold(sent: jax.Array, mask: jax.Array) -> jax.Array:
        smallest = jnp.min(jnp.where(mask, jnp.abs(sent), jnp.inf))
        return jnp.where(jnp.all(mask) | ~jnp.any(mask), 0.0, smallest)

    def factor(size: jax.Array, theta: jax.Array) -> jax.Array:
        ratio = theta / jnp.maximum(size, jnp.maximum(theta, jnp.finfo(size.dtype).tiny))  # 0 to 1
        return 1.0 + 2.0 * ratio / (1.0 + ratio) ** 2

    def anew(weights: tuple[jax.Array, ...], number: jax.Array) -> StepMasks:
        sizes = [jnp.abs(weight) for weight in weights]
        masks = (mask & (size >= theta) for mask, size, theta in zip(given.masks, sizes, thetas, strict=True))
        return StepMasks(tuple(masks), tuple(map(factor, sizes, thetas)))

    leaves = jax.tree.leaves(given.params)
    thetas = [threshold(leaves[i], mask) for i, mask in zip(task.layout.prunable, given.masks, strict=True)]
    return sgd_round(task, given, anew)

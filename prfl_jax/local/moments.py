"""Keeps an optimiser's moments of weights that a step does not hold, for local and server optimisers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def kept_where_not_held(held: Any, params: Any, before: Any, after: Any) -> Any:
    """The state `after` a step, and as it was `before` for weights that are not held.

    A leaf of the state belongs to a weight's leaf if its path ends in that leaf's and its shape is the same.
    """
    flags = jax.tree.leaves(held)
    anything = jnp.any(jnp.stack([jnp.any(flag) for flag in flags]))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    of_path = {path: (w.shape, flag) for (path, w), flag in zip(leaves, flags, strict=True)}

    def choose(path: tuple[Any, ...], old: Any, new: Any) -> Any:
        ends = (of_path.get(path[k:]) for k in range(len(path) + 1))
        shape, flag = next((end for end in ends if end is not None), (None, anything))
        return jnp.where(flag if old.shape == shape else anything, new, old)

    return jax.tree_util.tree_map_with_path(choose, before, after)

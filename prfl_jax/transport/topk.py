"""The upload `topk` on the device: a client sends the largest values of its update and keeps the rest for its next one.

Error feedback (Seide et al. 2014; Stich et al. 2018): what was not sent is added to the next update before its largest
values are chosen. The choice is over all trained values of the model together; its state is sent whole.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from prfl_jax.models.variables import split_state
from prfl_jax.submodel.largest import largest
from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.masks import apply_masks


def init(params: Any) -> Any:
    """0 for each value that is trained."""
    return jax.tree.map(jnp.zeros_like, split_state(params)[0])


def encode(
    layout: Layout, sent: Any, trained: Any, masks: tuple[jax.Array, ...], unsent: Any, values: jax.Array
) -> tuple[Any, Any]:
    """The largest values of an update and what the client had not sent of earlier ones, added up.

    Args:
      sent, trained: the sub-model before and after the local round.
      masks: of the sub-model; () for the full model. Of what the client does not hold nothing is sent, nothing lost.
      unsent: like the trained values of the model.
      values: int32 scalar, how many are sent; ties by position, leaf after leaf.

    Returns:
      (the model as the server gets it: `sent` plus these values, 0 where masked, and the state as trained; what is
      unsent now).
    """
    before, after = split_state(sent)[0], split_state(trained)[0]
    update = jax.tree.map(lambda w0, w, rest: w - w0 + rest, before, after, unsent)
    if masks:
        held = jax.tree.map(lambda w: jnp.ones(w.shape, bool), trained)
        held = split_state(apply_masks(layout, held, masks))[0]
        update = jax.tree.map(lambda u, here: jnp.where(here, u, 0.0), update, held)
    leaves, treedef = jax.tree.flatten(update)
    total = sum(leaf.size for leaf in leaves)
    everything = tuple(jnp.ones(leaf.shape, bool) for leaf in leaves)
    found = lax.cond(values >= total, lambda: everything, lambda: largest(tuple(map(jnp.abs, leaves)), values))
    chosen = jax.tree.unflatten(treedef, found)
    arrived = jax.tree.map(lambda w0, u, here: jnp.where(here, w0 + u, w0), before, update, chosen)
    rest = jax.tree.map(lambda u, here: jnp.where(here, 0.0, u), update, chosen)
    if masks:
        rest = jax.tree.map(lambda now, old, here: jnp.where(here, now, old), rest, unsent, held)
    return {**trained, **arrived}, rest

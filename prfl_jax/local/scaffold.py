"""SCAFFOLD's local work (Karimireddy et al. 2020): SGD whose gradients are corrected by control variates.

A client adds c - c_i to each gradient. After its K steps at rate lr it keeps c_i+ = c_i - c + (w_sent - w_i) / (K lr)
(option II). The server's c, which is sent beside the model, moves by |S| / N times the mean of c_i+ - c_i over the
clients S of a window. Of a sub-model only the weights that a client holds count; the others keep their c_i.
"""

from __future__ import annotations

from typing import Any

from prfl_jax.local.work import ClientState, LocalInput, LocalResult, LocalTask


def scaffold_round(task: LocalTask, given: LocalInput) -> LocalResult:
    """SGD with c - c_i added to each gradient; keeps the next c_i."""
    import jax
    import jax.numpy as jnp

    from prfl_jax.local.sgd import sgd_round
    from prfl_jax.models.variables import split_state
    from prfl_jax.submodel.masks import apply_masks

    correction = jax.tree.map(jnp.subtract, given.beside, given.kept)
    result = sgd_round(task, given, correction=correction)
    sent, after = split_state(given.params)[0], split_state(result.params)[0]
    # a rate that has decayed to 0 changes no weight, and must not divide
    over = 1.0 / jnp.maximum(given.lr * task.settings.steps, 1e-30)
    moved = jax.tree.map(lambda c, w0, w: over * (w0 - w) - c, given.beside, sent, after)
    if given.masks:  # the layout is that of the params with their state, which has no masks
        whole = {**result.params, **moved}
        moved = split_state(apply_masks(task.layout, whole, given.masks))[0]
    return result._replace(kept=jax.tree.map(jnp.add, given.kept, moved))


def _zeros(params: Any) -> Any:
    """0 for each weight that is trained."""
    import jax
    import jax.numpy as jnp

    from prfl_jax.models.variables import split_state

    return jax.tree.map(jnp.zeros_like, split_state(params)[0])


def _change(before: Any, after: Any) -> Any:
    """c_i+ - c_i."""
    import jax
    import jax.numpy as jnp

    return jax.tree.map(jnp.subtract, after, before)


CONTROL_VARIATES = ClientState(init=lambda task, params: _zeros(params), server=_zeros, change=_change)

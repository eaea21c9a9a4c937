"""Edge pruning at the client (Zhou et al. 2024): training under its own masks, and local pruning (Algorithm 2).

The client joins the server's model, where the server's mask is 1, with its own values elsewhere (Eq. 6), and trains
what its own masks hold of that. In a pruning round it then chooses its masks anew (`submodel/local_pruning.py`). It
keeps these values, its masks, and the squared gradients of all weights, also of those that it does not hold.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

from prfl_jax.local.work import ClientState, LocalInput, LocalResult, LocalTask

if TYPE_CHECKING:
    from prfl_jax.submodel.layout import Layout


class OwnModel(NamedTuple):
    """What a client keeps, of the prunable leaves.

    Attributes:
      weights: its last values, where the server's mask may be 0.
      bits: its masks, packed.
      squares: squared gradients, added up since its last pruning; () where only those of the pruning round count.
    """

    weights: tuple[Any, ...]
    bits: tuple[Any, ...]
    squares: tuple[Any, ...]


def first(task: LocalTask, params: Any) -> OwnModel:
    """Full masks; no gradient yet."""
    import jax.numpy as jnp

    from prfl_jax.submodel.masks import pack

    layout = task.layout
    weights = layout.prunable_leaves(params)
    assert task.settings.pruning is not None
    squares = tuple(map(jnp.zeros_like, weights)) if task.settings.pruning.since_pruning else ()
    return OwnModel(weights, tuple(pack(jnp.ones(n, bool)) for n in layout.sizes()), squares)


def joined(layout: Layout, params: Any, masks: tuple[Any, ...], weights: tuple[Any, ...]) -> Any:
    """Eq. 6: the server's values where its mask is 1, the client's own elsewhere; the client's masks are not applied.

    Args:
      params: the server's, of which those that are never pruned are taken too.
      masks: the server's.
      weights: the client's (`OwnModel.weights`).
    """
    from prfl_jax.submodel.masks import put_back

    local = layout.map_pruned(params, weights, lambda w, mine: mine)
    return put_back(layout, params, masks, local)


def personal_round(task: LocalTask, given: LocalInput) -> LocalResult:
    """Eq. 6, local training, and in a pruning round Algorithm 2, or what stands for it (section 3.3, steps 2 and 3)."""
    import jax.numpy as jnp
    from jax import lax

    from prfl_jax.local.sgd import sgd_round
    from prfl_jax.submodel.masks import apply_masks, pack, unpack_masks

    layout, pruning = task.layout, task.settings.pruning
    choose = task.settings.choose_masks
    assert pruning is not None and choose is not None
    kept: OwnModel = given.kept
    own = unpack_masks(layout, kept.bits)
    local = joined(layout, given.params, given.masks, kept.weights)
    begun = given._replace(params=apply_masks(layout, local, own), masks=own)
    result = sgd_round(dataclasses.replace(task, settings=_all_gradients(task)), begun)
    squares = result.squares
    if pruning.since_pruning:
        squares = tuple(map(jnp.add, kept.squares, squares))

    trained, share = layout.prunable_leaves(result.params), jnp.int32(pruning.millionths)

    def pruned() -> tuple[Any, ...]:
        return choose(trained, own, squares, share, given.density_pct)

    masks = lax.cond(given.prunes, pruned, lambda: own)
    values = trained
    if pruning.stale:
        values = tuple(map(jnp.where, own, trained, layout.prunable_leaves(local)))
    params = layout.map_pruned(result.params, tuple(zip(values, masks, strict=True)), lambda _, vm: vm[0] * vm[1])
    again = tuple(jnp.where(given.prunes, 0.0, square) for square in squares) if pruning.since_pruning else ()
    weights = values if pruning.stale else layout.prunable_leaves(params)
    bits = tuple(pack(mask.reshape(-1)) for mask in masks)
    return LocalResult(params, result.loss, (), OwnModel(weights, bits, again))


def _all_gradients(task: LocalTask) -> Any:
    """Settings with which the squared gradients of all weights are added up, also of those that masks leave out."""
    return dataclasses.replace(task.settings, square_gradients=True, squares_of_all=True)


OWN_MODELS = ClientState(init=first)

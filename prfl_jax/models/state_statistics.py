"""State recomputed from data: the mean of the batches' own statistics (HeteroFL's static batch norm, Diao et al. 2021).

A running statistic is an exponential average: a call in training makes `m s + (1 - m) b` of the state s, where b is the
batch's own statistic and m the layer's momentum. So a call from the state 0 gives `(1 - m) b`, and one from another
state gives m. The mean of b over batches then depends on no momentum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prfl_jax.models.build import Model, flat_paths
from prfl_jax.models.checked_module import draw
from prfl_jax.models.variables import Params, split_state, with_state
from prfl_jax.system.errors import UserError
from prfl_jax.system.jax_settings import fixed as fixed_settings
from prfl_jax.system.jax_settings import root_key

BATCH = 4  # samples of a batch with which a module is checked
CLOSE = 1e-3  # of the largest value: how exactly a state has to be an exponential average
NEVER = 1e-6  # a share of a batch's own statistics that counts as none


def statistics(
    model: Model,
    params: Params,
    batches: jax.Array,
    prepare: Callable[[jax.Array], jax.Array] = lambda batch: batch,
    key: jax.Array | None = None,
) -> Params:
    """The state over given batches: the mean of each batch's own statistics; under `jax.jit` or not.

    Args:
      model: one with state, bound to its fixed variables.
      params: with a state, whose values do not count (but those of variables that keep what they are, m = 1).
      batches: `[K, B, ...]`. Each batch counts the same.
      prepare: makes of a batch what the model is given.
      key: of dropout, which acts as in training; None: a fixed one.

    Returns:
      The state, as it stands under `variables.STATE`.
    """
    key = root_key(0) if key is None else key
    trained, state = split_state(params)
    numbers = jnp.arange(len(batches))

    def after(state: Params, batch: jax.Array, number: jax.Array) -> Params:
        return model.step(with_state(trained, state), prepare(batch), jax.random.fold_in(key, number))[1]

    def turn(mean: Params, item: tuple[jax.Array, jax.Array]) -> tuple[Params, None]:
        batch, number = item
        own = after(jax.tree.map(jnp.zeros_like, state), batch, number)
        return jax.tree.map(lambda m, new: m + (new - m) / (number + 1), mean, own), None

    first = after(jax.tree.map(jnp.zeros_like, state), batches[0], numbers[0])
    probe = jax.tree.map(_probe, first)
    moved = after(probe, batches[0], numbers[0])
    mean, _ = lax.scan(turn, jax.tree.map(jnp.zeros_like, state), (batches, numbers))

    def own_share(probe: jax.Array, moved: jax.Array, first: jax.Array) -> jax.Array:
        """1 - m of a leaf; as differences, since a mean of numbers near 1 would round m's last digits away."""
        momentum = ((moved - first) / probe).reshape(-1)
        return 1.0 - momentum[0] - jnp.mean(momentum - momentum[0])

    def whole(mean: jax.Array, share: jax.Array, before: jax.Array) -> jax.Array:
        return jnp.where(share > NEVER, mean / jnp.where(share > NEVER, share, 1.0), before)

    return jax.tree.map(whole, mean, jax.tree.map(own_share, probe, moved, first), state)


def _probe(own: jax.Array) -> jax.Array:
    """A state about as large as what a call leaves of 0: a power of 2, by which products are exact."""
    return jnp.full_like(own, jnp.exp2(jnp.ceil(jnp.log2(jnp.maximum(1.0, jnp.max(jnp.abs(own)))))))


@fixed_settings()
def check_statistics(model: Model) -> None:
    """Checks that `statistics` can recompute a model's state: that it is an exponential average of batch statistics.

    Args:
      model: not bound to fixed variables.

    Raises:
      UserError: there is no state, or it is no such average; one line.
    """
    key, begin = "config.model.state='static'", f"with the state of {model.name!r}"
    if not model.has_state:
        raise UserError(f"{key}: {model.name!r} has no state to recompute; allowed: average")
    rng = np.random.default_rng(0)
    params, fixed = jax.jit(lambda: (model.init(root_key(0)), model.fixed(root_key(0))))()
    bound, state = model.bound(fixed), split_state(params)[1]
    x = jnp.asarray(draw(model.sample, BATCH, rng, normal=True))

    @jax.jit
    def after(state: Params) -> Params:
        return bound.step(with_state(params, state), x, root_key(1))[1]

    def like(values: Any) -> Params:
        return jax.tree.map(lambda leaf: jnp.asarray(values(leaf.shape), jnp.float32), state)

    other = like(lambda shape: rng.uniform(0.5, 2.0, shape))
    zero, one, mixed = (after(s) for s in (like(np.zeros), like(np.ones), other))
    flat = (flat_paths(tree) for tree in (zero, one, mixed, other))
    for path, at0, at1, got, s in zip(flat_paths(state), *(part.values() for part in flat), strict=True):
        m = np.mean(np.asarray(at1 - at0, np.float64))
        want = np.asarray(at0, np.float64) + m * np.asarray(s, np.float64)
        apart = np.abs(want - np.asarray(got, np.float64)).max()
        moves_on = m > 1.0 - NEVER and np.any(at0)  # such as a sum or a counter
        if moves_on or not 0.0 <= m <= 1.0 + NEVER or not apart <= CLOSE * max(1.0, np.abs(want).max()):
            raise UserError(
                f"{key}: cannot be used {begin} ({path}), which is no exponential average of what its batches give; "
                "allowed: average or local"
            )

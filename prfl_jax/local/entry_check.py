"""Whether an optimiser takes the same steps in a narrower network: entries that are 0 must not change the others."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prfl_jax.local.factories import OptaxFactory

# longer than the 128 from which some optimisers keep sums of rows and columns alone
ROWS, COLUMNS, STEPS = 160, 144, 3


@functools.cache
def steps_by_entry(factory: OptaxFactory, keeps_moments: bool) -> bool:
    """Whether steps of a matrix, half of whose rows and columns are masked, are those of the other half alone.

    False for what cannot take such steps.

    Args:
      keeps_moments: whether masked entries may have moments of rounds that held them.
    """
    try:
        return _same(factory, keeps_moments)
    except Exception:  # of a user's factory; `check_optimizer` has refused what takes no steps of the run's model
        return False


def _same(factory: OptaxFactory, keeps_moments: bool) -> bool:
    rng = np.random.default_rng(0)
    rows, columns = np.arange(0, ROWS, 2), np.arange(0, COLUMNS, 2)
    mask = np.zeros((ROWS, COLUMNS), bool)
    mask[np.ix_(rows, columns)] = True

    def drawn(shape: tuple[int, ...]) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    weight = jnp.where(mask, drawn(mask.shape), 0.0)
    gradients = jnp.where(mask, drawn((STEPS, *mask.shape)), 0.0)

    def half(leaf: Any) -> Any:
        return leaf[..., rows, :][..., columns] if leaf.shape[-2:] == mask.shape else leaf

    @jax.jit
    def walk(weight: jax.Array, gradients: jax.Array, state: Any, mask: Any) -> jax.Array:
        rule = factory.make(0.1)

        def step(carry: Any, gradient: jax.Array) -> tuple[Any, None]:
            weight, state = carry
            update, state = rule.update(gradient, state, weight)
            return (jnp.where(mask, weight + update, 0.0), state), None

        return jax.lax.scan(step, (weight, state), gradients)[0][0]

    state, small = factory.make(0.1).init(weight), factory.make(0.1).init(half(weight))
    if [leaf.shape for leaf in map(half, jax.tree.leaves(state))] != [leaf.shape for leaf in jax.tree.leaves(small)]:
        return False
    if keeps_moments:
        state = factory.make(0.1).update(drawn(mask.shape), state, weight)[1]
    full = half(walk(weight, gradients, state, mask))
    alone = walk(half(weight), half(gradients), jax.tree.map(half, state), np.ones((len(rows), len(columns)), bool))
    return bool(np.allclose(full, alone, rtol=1e-5, atol=1e-6))

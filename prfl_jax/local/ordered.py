"""FjORD's local work (Horvath et al. 2021), ordered dropout: each local step trains a width drawn from those it may.

A client may draw the tiers (`density.tiers`) below its own density, and its own density, all with the same probability.
A step trains the channels of its width; the client's other channels keep their values. Self-distillation is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prfl_jax.local.work import LocalInput, LocalResult, LocalTask

if TYPE_CHECKING:
    import jax

WIDTHS = 0xF7D0_0000  # folded into the round's key; larger than any number of a step


def draw_width(widths: tuple[int, ...], density_pct: Any, key: jax.Array, number: Any) -> jax.Array:
    """The density (percent) of step `number` of the round with this `key`: int32 scalar, at most `density_pct`."""
    import jax
    import jax.numpy as jnp

    tiers = jnp.asarray(sorted({*widths, 100}), jnp.int32)
    smaller = jnp.sum(tiers < density_pct)
    step_key = jax.random.fold_in(jax.random.fold_in(key, WIDTHS), number)
    drawn = jax.random.randint(step_key, (), 0, smaller + 1)
    return jnp.where(drawn < smaller, tiers[drawn], density_pct)


def ordered_round(task: LocalTask, given: LocalInput) -> LocalResult:
    """SGD under the levels of the width of each step."""
    import jax.numpy as jnp

    from prfl_jax.local.sgd import StepMasks, sgd_round

    assert task.levels is not None
    levels = tuple(jnp.asarray(level) for level in task.levels)

    def anew(weights: tuple[jax.Array, ...], number: jax.Array) -> StepMasks:
        width = draw_width(task.settings.widths, given.density_pct, given.key, number)
        return StepMasks(tuple(level <= width.astype(jnp.int8) for level in levels))

    return sgd_round(task, given, anew)

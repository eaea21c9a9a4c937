"""Checks that a user's narrower network computes what the whole one does with its other channels at 0."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from prfl_jax.engine.widths import Width, index_of, put, take
from prfl_jax.models.build import Model
from prfl_jax.models.checked_module import draw
from prfl_jax.models.variables import split_state, with_state
from prfl_jax.submodel.layout import Layout
from prfl_jax.system.jax_settings import root_key

SAMPLES = 4
# of the largest output: layers may compute in bfloat16, and a factor such as the root of a share of .9 is 5 % away
TOLERANCE = 0.02
_NOISE = 0.05  # added to the first weights, of which whole layers may be 0


def same_outputs(model: Model, layout: Layout, width: Width) -> bool:
    """Whether both networks have the same outputs in evaluation, of random samples and the first channels.

    Args:
      model, layout: of the whole network.
      width: one of it.
    """
    order = [jnp.arange(size, dtype=jnp.int32) for size in width.sizes]
    at = [tuple(map(functools.partial(index_of, order), axes)) for axes in width.places]
    rng = np.random.default_rng(0)
    params, state = split_state(model.init(root_key(0)))
    params = jax.tree.map(lambda w: w + _NOISE * rng.standard_normal(w.shape).astype(np.float32), params)
    leaves, treedef = jax.tree.flatten(with_state(params, state))
    small = [take(leaf, place) for leaf, place in zip(leaves, at, strict=True)]
    whole = [put(jnp.zeros_like(leaf), own, place) for leaf, own, place in zip(leaves, small, at, strict=True)]
    x = jnp.asarray(draw(model.sample, SAMPLES, rng, normal=True))

    def outputs(model: Model, leaves: list[jax.Array]) -> np.ndarray:
        apply = jax.jit(lambda leaves, x: model.apply(jax.tree.unflatten(treedef, leaves), x, False, None))
        return np.asarray(apply(leaves, x), np.float64)

    found, wanted = outputs(width.model, small), outputs(model, whole)
    return bool(np.abs(found - wanted).max() <= TOLERANCE * np.abs(wanted).max())

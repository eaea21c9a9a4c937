"""Layers of weights and masks drawn for tests of shared masks."""

import jax.numpy as jnp

SHAPES = ((3, 2, 4), (11, 5), (1,))  # 24, 55 and 1 weights


def drawn(rng, draw):
    """float32 arrays of `SHAPES`; `draw` is a function of the generator and a shape."""
    return tuple(jnp.asarray(draw(rng, shape), jnp.float32) for shape in SHAPES)


def some(rng, share):
    """Masks of about that share of the weights."""
    return tuple(jnp.asarray(rng.random(shape) < share) for shape in SHAPES)

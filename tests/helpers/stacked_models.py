"""A small layout, random models stacked over clients, and their packed masks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.masks import pack

SHAPES = {"bias": (3,), "dense": (5, 3), "kernel": (2, 2, 1, 3)}


LAYOUT = Layout.of({name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in SHAPES.items()})


PRUNED = ("dense", "kernel")


def setting(clients, rng, density=0.5):
    """(old, buffer, masks, bits); models are 0 where their masks are."""
    old = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    buffer = {name: rng.normal(size=(clients, *shape)).astype(np.float32) for name, shape in SHAPES.items()}
    masks = {name: rng.random((clients, *SHAPES[name])) < density for name in PRUNED}
    for name in PRUNED:
        buffer[name] = np.where(masks[name], buffer[name], np.float32(0))
    return old, buffer, masks, packed(masks, clients)


@functools.partial(jax.jit, static_argnums=1)
def _pack_all(mask, clients):
    return jax.vmap(pack)(mask.reshape(clients, -1))


def packed(masks, clients):
    return tuple(_pack_all(masks[name], clients) for name in PRUNED)

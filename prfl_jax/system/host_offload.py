"""Keeps models stacked over clients in the host's memory, and moves single models to the device and back.

Models in the host's memory are moved one at a time, inside the compiled program, and stay there when they are written.
The memory is part of an array's type, so the same code serves both.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def host_memory(device: Any) -> NamedSharding:
    """The host's memory that a device can reach.

    Named, on a mesh of one: the place becomes part of the type of what a compiled function returns (JAX 0.10).
    """
    return NamedSharding(Mesh(np.array([device]), ("one",)), PartitionSpec(), memory_kind="pinned_host")


def on_host(stack: jax.Array) -> bool:
    """Whether an array, or what stands for it in a function that is traced, lies with the host."""
    return jax.typeof(stack).memory_space == jax.memory.Space.Host


def fetch(stack: jax.Array, slots: Any) -> jax.Array:
    """`stack[slots]`, on the device, of one slot or of several; only inside a compiled function."""
    if not on_host(stack):
        return stack[slots]
    if jnp.ndim(slots):
        return lax.map(lambda slot: fetch(stack, slot), slots)
    return jax.device_put(lax.dynamic_index_in_dim(stack, slots, keepdims=False), jax.memory.Space.Device)


def put(stack: jax.Array, slots: jax.Array, new: jax.Array) -> jax.Array:
    """The stack with `new` at one slot or at several, in the stack's own type; what has no slot is dropped.

    No slot may come twice. XLA is told so: else it makes a sort of each write on a GPU with deterministic operations.
    """
    new = new.astype(stack.dtype)
    if not on_host(stack):
        if jnp.ndim(slots):  # padding too has to be unique
            slots = jnp.where(slots < len(stack), slots, len(stack) + jnp.arange(len(slots), dtype=slots.dtype))
        return stack.at[slots].set(new, mode="drop", unique_indices=True)
    if jnp.ndim(slots):
        return lax.fori_loop(0, len(slots), lambda k, stack: put(stack, slots[k], new[k]), stack)
    there = jnp.minimum(slots, len(stack) - 1)
    new = jnp.where(slots < len(stack), new, fetch(stack, there))
    return lax.dynamic_update_index_in_dim(stack, jax.device_put(new, jax.memory.Space.Host), there, 0)


def fetch_all(stacks: Any, slots: Any, like: Any) -> Any:
    """`fetch` of each leaf, in the type of its twin in `like`."""
    return jax.tree.map(lambda stack, w: fetch(stack, slots).astype(w.dtype), stacks, like)


def put_all(stacks: Any, slots: jax.Array, new: Any) -> Any:
    """`put` of each leaf."""
    return jax.tree.map(lambda stack, values: put(stack, slots, values), stacks, new)

"""The pure functions that an adapter makes of a module, over its params and its fixed variables.

Params are trained. Fixed variables are everything else that a module keeps in arrays: buffers, constants, projections
drawn at random. They are drawn once from the model's seed, stay what they are, and are part of the saved model. A tree
of both is the params with the fixed variables under `FIXED`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Params = Any  # nested dict of arrays
FIXED = "@fixed"  # no attribute of a module can have this name


class Noise(NamedTuple):
    """Random numbers in training: whether any are drawn, dropout layers that drop nothing, classes that were called."""

    drawn: bool
    silent: tuple[str, ...]
    classes: frozenset[type]


class Functions(NamedTuple):
    """A module as pure functions.

    Attributes:
      init: key -> params.
      fixed: key -> fixed variables, of the same drawing; {} where there are none.
      apply: (whole, x `[B, H, W, C]`, train, key or None) -> what the module returns, floats as float32.
      rewritten: (whole, x, train, key) -> {path: (before, after)} of variables that the call gave another array;
        `before` is None for one that was not there.
      noise: images of a batch -> what becomes of random numbers in a call of training.
    """

    init: Callable[[jax.Array], Params]
    fixed: Callable[[jax.Array], Params]
    apply: Callable[[Params, jax.Array, bool, jax.Array | None], Any]
    rewritten: Callable[[Params, jax.Array, bool, jax.Array], dict[str, tuple[Any, Any]]]
    noise: Callable[[int], Noise]


def whole(params: Params, fixed: Params) -> Params:
    """Params and fixed variables as `Model.apply` takes them."""
    return {**params, FIXED: fixed} if fixed else params


def parts(tree: Params, kinds: Params) -> tuple[Params, Params]:
    """(params, fixed variables in the types of `kinds`, which a file may have widened).

    Raises:
      ValueError: a module with fixed variables is given params without them.
    """
    if not kinds:
        return tree, {}
    if FIXED not in tree:
        raise ValueError(f"params without the module's fixed variables; allowed: a tree that has them under {FIXED!r}")
    params = {name: part for name, part in tree.items() if name != FIXED}
    return params, jax.tree.map(lambda value, kind: jnp.asarray(value, kind.dtype), tree[FIXED], kinds)


def as_float32(outputs: Any) -> Any:
    """Outputs in another float type as float32, which losses are computed in; what is no such array stays."""
    dtype = getattr(outputs, "dtype", None)
    return outputs.astype(jnp.float32) if dtype is not None and jnp.issubdtype(dtype, jnp.floating) else outputs


def named_key(key: jax.Array, name: str) -> jax.Array:
    """A key of its own for random numbers of that name, out of a step's key; `dropout` has the step's key itself."""
    return key if name == "dropout" else jax.random.fold_in(key, zlib.crc32(name.encode()))


def text_keys(tree: Any) -> Any:
    """Numbers, which nnx counts the parts of a list by, as text: what a saved model has."""
    return {str(key): text_keys(part) for key, part in tree.items()} if isinstance(tree, dict) else tree

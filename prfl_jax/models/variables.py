"""`Functions`: a user's module as pure functions over its params, state and fixed variables, made by an adapter.

Params are trained. State is what a call in training writes, such as the running statistics of batch norm: float32
arrays of constant shapes that no gradient reaches, which stand among the params under `STATE`. Fixed variables are
everything else that a module keeps in arrays: buffers, constants, projections drawn at random. They are drawn once
from the model's seed, never change, and are part of the saved model. A whole tree is the params (with the state) and
the fixed variables under `FIXED`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from prfl_jax.system.errors import UserError

Params = Any  # nested dict of arrays
# no attribute of a module can have these names; CLIENTS is for layers that clients keep, in a saved model
FIXED, STATE, CLIENTS = "@fixed", "@state", "@clients"


class Noise(NamedTuple):
    """Random numbers in training: whether any are drawn, dropout layers that drop nothing, classes that were called."""

    drawn: bool
    silent: tuple[str, ...]
    classes: frozenset[type]


class Functions(NamedTuple):
    """A module as pure functions.

    Attributes:
      init: key -> params, with the state under `STATE` where the module has one.
      fixed: key -> fixed variables, of the same drawing; {} where there are none.
      apply: (whole, x `[B, ...]`, train, key or None) -> what the module returns, floats as float32.
      step: (whole, x, key or None) -> (the same in training, the state after the call; {} where there is none).
      rewritten: (whole, x, train, key) -> {path: (before, after)} of variables that the call gave another array;
        `before` is None for one that was not there.
      noise: samples of a batch -> what becomes of random numbers in a call of training.
      norm_leaves: paths of the params that belong to the same layers as the state, such as gain and bias of batch norm.
    """

    init: Callable[[jax.Array], Params]
    fixed: Callable[[jax.Array], Params]
    apply: Callable[[Params, jax.Array, bool, jax.Array | None], Any]
    step: Callable[[Params, jax.Array, jax.Array | None], tuple[Any, Params]]
    rewritten: Callable[[Params, jax.Array, bool, jax.Array], dict[str, tuple[Any, Any]]]
    noise: Callable[[int], Noise]
    norm_leaves: frozenset[str] = frozenset()


def whole(params: Params, fixed: Params) -> Params:
    """Params and fixed variables as `Model.apply` takes them."""
    return {**params, FIXED: fixed} if fixed else params


def split_state(params: Params) -> tuple[Params, Params]:
    """(params alone, state); the state is {} where there is none."""
    return {name: part for name, part in params.items() if name != STATE}, params.get(STATE, {})


def with_state(params: Params, state: Params) -> Params:
    """Params with that state instead of theirs; `{}` leaves them as they are."""
    return {**params, STATE: state} if state else params


class Kinds(NamedTuple):
    """Shapes and types of a module's variables that are no params."""

    fixed: Params
    state: Params


def parts(tree: Params, kinds: Kinds) -> tuple[Params, Params, Params]:
    """(params, fixed variables, state), in the types of `kinds`, which a file may have widened; no gradient to a state.

    Raises:
      ValueError: a module with fixed variables or state is given params without them.
    """
    for part, words, there in ((FIXED, "fixed variables", kinds.fixed), (STATE, "state", kinds.state)):
        if there and part not in tree:
            raise ValueError(f"params without the module's {words}; allowed: a tree that has them under {part!r}")
    params = {name: part for name, part in tree.items() if name not in (FIXED, STATE)} if any(kinds) else tree
    fixed = jax.tree.map(
        lambda value, kind: jnp.asarray(value, kind.dtype), tree[FIXED] if kinds.fixed else {}, kinds.fixed
    )
    state = jax.tree.map(as_state, tree[STATE]) if kinds.state else {}
    return params, fixed, state


def as_state(value: Any) -> jax.Array:
    """A value of a state: float32, not through a weak type, and without a gradient."""
    return lax.stop_gradient(lax.convert_element_type(value, jnp.float32))


def check_state(name: str, written: Mapping[str, tuple[Any, Any]]) -> frozenset[str]:
    """The variables that are state, of those that a call in training writes; whole numbers are none.

    Args:
      name: of the model, for the text of an error.
      written: {path: (before, after)}; `before` is None for a variable that was not there.

    Raises:
      UserError: a shape or a type changes, or floats are not float32.
    """
    found = set()
    for path, (before, after) in written.items():
        if not all(hasattr(value, "dtype") and hasattr(value, "shape") for value in (before, after)):
            continue
        kinds = [f"{value.dtype}{list(value.shape)}" for value in (before, after)]
        if kinds[0] != kinds[1]:
            raise UserError(
                f"config.model.name: {name!r} has state whose shape or type changes in training ({path}: {kinds[0]}, "
                f"then {kinds[1]}); allowed: state of constant shape and type"
            )
        if jnp.issubdtype(before.dtype, jnp.floating):
            if before.dtype != jnp.float32:
                raise UserError(f"config.model.name: {name!r} has {before.dtype} state ({path}); allowed: float32")
            found.add(path)
    return frozenset(found)


def as_shapes(values: tuple[Any, Any]) -> tuple[Any, Any]:
    """Shapes and types of two arrays, to be kept after a trace; what is no array stays."""
    one, other = (
        jax.ShapeDtypeStruct(value.shape, value.dtype) if hasattr(value, "dtype") and hasattr(value, "shape") else value
        for value in values
    )
    return one, other


def beside_state(params: Iterable[str], owners: Iterable[str]) -> frozenset[str]:
    """Paths of params that are in the same module as one of the variables `owners`, by their paths."""
    modules = {path.rpartition("/")[0] for path in owners}
    return frozenset(path for path in params if path.rpartition("/")[0] in modules)


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

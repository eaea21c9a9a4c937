"""Refuses a plugin of `local.name` whose round returns no update of its model; it traces and runs nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from prfl_jax import registry
from prfl_jax.local.kept import find_client_state
from prfl_jax.local.settings_from_config import settings_from_config
from prfl_jax.local.work import Batches, ClientState, LocalInput, LocalResult, LocalTask, LocalWork
from prfl_jax.models import make_loss
from prfl_jax.models.build import Model
from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.masks import apply_masks
from prfl_jax.system.errors import UserError
from prfl_jax.system.jax_settings import root_key
from prfl_jax.tasks import find_task

KEY, MODEL = "config.local.name", "a pytree like given.params"
_FLOAT, _INT = jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32)


def checked_work(config: Any, work: LocalWork, model: Model, layout: Layout, levels: Any) -> LocalWork:
    """The work that a run takes: a built-in one as it is, a plugin after its check and with its update masked.

    Args:
      config: of the run, validated.
      levels: as in `LocalTask`.

    Raises:
      UserError: the plugin cannot be traced, or returns something else than `LocalResult` says.
    """
    name = config.local.name
    if not registry.is_own(name):
        return work
    loss = find_task(config.task.name).sample_loss(make_loss(config.model.loss))
    task = LocalTask(model, loss, layout, settings_from_config(config, work), levels)
    masks = tuple(jax.ShapeDtypeStruct(shape, jnp.bool_) for shape in _shapes(task))
    present = jax.ShapeDtypeStruct((task.model.classes,), jnp.bool_) if work.reads_labels else None
    _check_round(name, work, task, masks, present)
    if work.counted is not None:
        _check_counted(name, work.counted, task, masks, present)

    def masked(task: LocalTask, given: LocalInput) -> LocalResult:
        result = work.round(task, given)
        layout = task.layout
        squares = result.squares
        if squares and not task.settings.sum_gradients:  # which are of all weights
            squares = tuple(jnp.where(m, s, 0.0) for m, s in zip(given.masks, squares, strict=True))
        return result._replace(params=apply_masks(layout, result.params, given.masks), squares=squares)

    return dataclasses.replace(work, round=masked)


def _check_round(name: str, work: LocalWork, task: LocalTask, masks: tuple[Any, ...], present: Any) -> None:
    """Traces one client's round and checks its result."""

    params = task.model.shapes()
    state = find_client_state(work, task.settings)
    kept, beside = _checked_state(name, state, task, params) if state is not None else ((), ())
    given = LocalInput(
        params=params,
        masks=masks,
        batches=None,  # type: ignore[arg-type]  # made where it is traced
        lr=_FLOAT,  # type: ignore[arg-type]
        key=jax.eval_shape(lambda: root_key(0)),
        density_pct=_INT,
        present=present,
        client=_INT,
        steps=_INT if work.own_steps else None,
        kept=kept,
        beside=beside,
    )

    def whole(given: LocalInput, fixed: Any) -> Any:
        bound = dataclasses.replace(task, model=task.model.bound(fixed))
        return work.round(bound, given._replace(batches=_batches(task)))

    fixed = jax.eval_shape(lambda: task.model.fixed(root_key(0)))
    result = registry.call(KEY, name, jax.eval_shape, whole, given, fixed)
    if not isinstance(result, LocalResult):
        raise _refuse(name, "round", f"a {type(result).__name__}", "a prfl_jax.local.LocalResult")
    _alike(name, "round", ("params", result.params, MODEL), params)
    _alike(name, "round", ("kept", result.kept, "a pytree like given.kept"), kept)
    if not _is(result.loss, (), jnp.float32):
        raise _refuse(name, "round", f"loss of {_words(result.loss)}", "a float32 scalar")
    if task.settings.sum_gradients:
        *squares, rest = result.squares if isinstance(result.squares, tuple) and result.squares else (None,)
        allowed = "a tuple of float32 in the shapes of given.masks and a scalar, as settings.sum_gradients is set"
        _check_leaves(name, "round", tuple(squares), (task, jnp.float32), allowed)
        if not _is(rest, (), jnp.float32):
            raise _refuse(name, "round", f"a last entry of squares, {_words(rest)}", allowed)
    elif task.settings.square_gradients:
        allowed = "a tuple of float32 in the shapes of given.masks, as settings.square_gradients is set"
        _check_leaves(name, "round", result.squares, (task, jnp.float32), allowed)
    elif result.squares != ():
        raise _refuse(name, "round", _listed("squares", result.squares), "(), as settings.square_gradients is not set")


def _checked_state(name: str, state: ClientState, task: LocalTask, params: Any) -> tuple[Any, Any]:
    """Shapes of what a client keeps and of what is sent beside the model; both are traced."""
    kept = registry.call(KEY, name, jax.eval_shape, lambda params: state.init(task, params), params)
    for leaf in jax.tree.leaves(kept):
        if not leaf.size or jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            raise _refuse(name, "client_state.init", f"a leaf of {_words(leaf)}", "arrays of numbers, with some values")
    if state.server is None:
        return kept, ()
    server = registry.call(KEY, name, jax.eval_shape, state.server, params)
    for leaf in jax.tree.leaves(server):
        if leaf.dtype != jnp.float32 or not leaf.size:
            raise _refuse(name, "client_state.server", f"a leaf of {_words(leaf)}", "float32, with some values")
    change = registry.call(KEY, name, jax.eval_shape, state.change, kept, kept)
    _alike(name, "client_state", ("changes", change, "a pytree like what client_state.server returns"), server)
    return kept, server


def _check_counted(name: str, counted: Any, task: LocalTask, masks: tuple[Any, ...], present: Any) -> None:
    """Traces `counted` and checks its masks."""
    found = registry.call(
        KEY, name, jax.eval_shape, lambda masks, present: counted(task, masks, present), masks, present
    )
    _check_leaves(name, "counted", found, (task, jnp.bool_), "a tuple of bool in the shapes of masks")


def _check_leaves(name: str, function: str, found: Any, want: tuple[LocalTask, Any], allowed: str) -> None:
    """Refuses what is no tuple with one array of that type for each prunable leaf."""
    task, dtype = want
    what, shapes = "squares" if function == "round" else "masks", _shapes(task)
    if type(found) is not tuple or len(found) != len(shapes):
        raise _refuse(name, function, _listed(what, found), f"{allowed} ({len(shapes)} of them)")
    for i, (one, shape) in enumerate(zip(found, shapes, strict=True)):
        if not _is(one, shape, dtype):
            raise _refuse(name, function, f"{what}[{i}] of {_words(one)}", f"{allowed}, here {shape}")


def _batches(task: LocalTask) -> Batches:
    """Batches of zeros in a run's shapes, for tracing."""
    settings, sample = task.settings, task.model.sample
    steps = sample.shape[:1] if task.model.sequence else ()

    def zeros(*lead: int) -> tuple[jax.Array, jax.Array]:
        return jnp.zeros((*lead, *sample.shape), sample.dtype), jnp.zeros((*lead, *steps), jnp.int32)

    return Batches(
        one=lambda number: zeros(settings.batch_size), all=lambda: zeros(settings.steps, settings.batch_size)
    )


def _alike(name: str, function: str, what: tuple[str, Any, str], like: Any) -> None:
    """Refuses another pytree or other shapes than `like` has.

    Args:
      what: what it is, the pytree, and what is allowed, in words.
    """
    part, found, allowed = what
    if str(jax.tree.structure(found)) != str(jax.tree.structure(like)):
        kind = registry.one_line(jax.tree.structure(found))
        raise _refuse(name, function, f"{part} of another pytree, {kind}", allowed)
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(like), strict=True):
        if not _is(got, want.shape, want.dtype):
            raise _refuse(name, function, f"a leaf of {_words(got)} in {part} for one of {_words(want)}", allowed)


def _shapes(task: LocalTask) -> tuple[tuple[int, ...], ...]:
    """Of the prunable leaves."""
    return tuple(task.layout.shapes[i] for i in task.layout.prunable)


def _is(found: Any, shape: tuple[int, ...], dtype: Any) -> bool:
    return getattr(found, "shape", None) == shape and getattr(found, "dtype", None) == dtype


def _words(found: Any) -> str:
    """An array's shape and type, or the type of what is no array."""
    return f"shape {found.shape}, {found.dtype}" if hasattr(found, "dtype") else f"type {type(found).__name__}"


def _listed(what: str, found: Any) -> str:
    """What came in place of a tuple of arrays."""
    if isinstance(found, tuple | list):
        return f"{what} as a {type(found).__name__} of {len(found)}"
    return f"{what} of {_words(found)}"


def _refuse(name: str, function: str, found: str, allowed: str) -> UserError:
    return UserError(f"{KEY}: {function} of {name!r} returns {found}; allowed: {allowed}")

"""Refuses an optimiser or a schedule that a round cannot take its steps by; it traces and runs nothing."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import optax
from jax import lax

from prfl_jax import registry
from prfl_jax.local.factories import OptaxFactory
from prfl_jax.local.work import LocalSettings
from prfl_jax.system import keyword_args
from prfl_jax.system.errors import UserError

_FLOAT = jax.ShapeDtypeStruct((), jnp.float32)
_OF_THE_LOSS = {"value", "value_fn"}  # optax's names of its value, and of the function that gives it


def check_optimizer(config: Any, settings: LocalSettings, params: Any) -> None:
    """Traces two steps of the optimiser and one value of the schedule.

    Args:
      config: the group `local` of a config.
      params: shapes of the model, a pytree.

    Raises:
      UserError: they cannot be traced, or give something else than steps of this model; one line.
    """
    if settings.optimizer is not None:
        check_factory("local", config, settings.optimizer, params)
        if settings.keeps_moments:
            _check_kept(config, settings.optimizer, params)
    if settings.lr_schedule is not None:
        schedule, key = settings.lr_schedule, "config.local.lr_schedule"
        found = registry.call(key, config.lr_schedule, jax.eval_shape, schedule.factor, jnp.int32(0), settings.steps)
        if found.shape != ():
            raise UserError(f"{key}: {config.lr_schedule!r} gives shape {found.shape}; allowed: a scalar")


def _check_kept(config: Any, factory: OptaxFactory, params: Any) -> None:
    """Refuses to keep a state that there is none of, or that holds the learning rate: it would be that of one round."""
    key, name = "config.local.optimizer_state='kept'", config.optimizer
    traced, shapes = jax.make_jaxpr(lambda rate, params: factory.make(rate).init(params), return_shape=True)(
        _FLOAT, params
    )
    if not jax.tree.leaves(shapes):
        raise UserError(f"{key}: {name!r} has no state; allowed: reset")
    follows = {traced.jaxpr.invars[0]}  # what is computed from the rate
    for equation in traced.jaxpr.eqns:
        if any(isinstance(value, jax.extend.core.Var) and value in follows for value in equation.invars):
            follows.update(equation.outvars)
    if any(isinstance(value, jax.extend.core.Var) and value in follows for value in traced.jaxpr.outvars):
        raise UserError(f"{key}: the state of {name!r} holds the learning rate, which changes; allowed: reset")


def check_factory(group: str, config: Any, factory: OptaxFactory, params: Any) -> None:
    """Traces two steps of the transformation that a factory makes.

    Args:
      group: of the config, `local` or `aggregation`, in which the keys `optimizer` and `optimizer_args` are.

    Raises:
      UserError: as `check_optimizer`.
    """
    key, args = f"config.{group}.optimizer", config.optimizer_args

    def whole(params: Any, rate: Any) -> Any:
        made = factory.make(rate)
        if not isinstance(made, optax.GradientTransformation):
            raise TypeError(f"it returns a {type(made).__name__}, no optax.GradientTransformation")
        return trace_steps(made, params)

    try:
        registry.call(key, config.optimizer, jax.eval_shape, whole, params, _FLOAT)
    except UserError as error:
        given = "" if args == keyword_args.NONE else f"; config.{group}.optimizer_args={args!r}"
        raise UserError(f"{error}{given}") from error


def lack(factory: OptaxFactory) -> str | None:
    """What the transformation of a factory needs that no step gives it, as `_lack_of` says it; traces one update."""

    def update(params: Any, rate: Any) -> Any:
        made = factory.make(rate)
        return made.update(params, made.init(params), params)

    try:
        jax.eval_shape(update, jax.ShapeDtypeStruct((2, 2), jnp.float32), _FLOAT)
    except TypeError as error:
        return _lack_of(error)
    except Exception:  # which `check_optimizer` reports, with the run's model
        return None
    return None


def _lack_of(error: TypeError) -> str | None:
    """From the error of an update that takes keyword arguments besides gradient, state and params; None: of another."""
    if "required keyword-only argument" not in str(error):
        return None
    names = re.findall(r"'(\w+)'", str(error))
    needs = "the loss in each step" if _OF_THE_LOSS & set(names) else "more in each step"
    return f"needs {needs} ({', '.join(names)}), which steps do not give"


def trace_steps(transformation: Any, params: Any) -> Any:
    """Two steps, inside a function that is traced.

    Raises:
      TypeError: an update or a state is of another shape or type than its place.
    """

    def step(carry: Any, _: None) -> tuple[Any, None]:
        params, before = carry
        try:
            update, state = transformation.update(params, before, params)
        except TypeError as error:
            if (lacks := _lack_of(error)) is None:
                raise
            raise TypeError(f"its update {lacks}") from error
        _check_alike("its update", update, params, "the gradient")
        _check_alike("its state", state, before, "the state before")
        return (jax.tree.map(jnp.add, params, update), state), None

    return lax.scan(step, (params, transformation.init(params)), None, length=2)[0]


def _check_alike(what: str, found: Any, want: Any, words: str) -> None:
    """Raises TypeError for another pytree, shape or type."""
    if str(jax.tree.structure(found)) != str(jax.tree.structure(want)):
        raise TypeError(f"{what} is another pytree than {words}")
    for got, like in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        if (jnp.shape(got), jnp.result_type(got)) != (jnp.shape(like), jnp.result_type(like)):
            one, other = (f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}" for leaf in (got, like))
            raise TypeError(f"{what} has {one} for {other} of {words}")

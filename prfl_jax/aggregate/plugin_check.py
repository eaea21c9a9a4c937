"""Refuses a plugin whose aggregation kernel does not return a model like the server's; it traces and runs nothing."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from prfl_jax import registry
from prfl_jax.aggregate import robust
from prfl_jax.aggregate.choices import Aggregation
from prfl_jax.aggregate.kernels import Accumulator, AggregationKernel, AllModels, Arrivals, CloseInputs, ServerStep
from prfl_jax.aggregate.stacked import StackedUpdates
from prfl_jax.submodel.layout import Layout, bits_length
from prfl_jax.system.errors import UserError

KEY, MODEL = "config.aggregation.name", "a pytree like held.params"
_FLOAT = jax.ShapeDtypeStruct((), jnp.float32)


def check_kernel(config: Any, choice: Aggregation, layout: Layout, params: Any, slots: int) -> None:
    """Traces the kernel of a plugin and checks what it returns.

    Args:
      config: the group `aggregation` of a config.
      params: shapes of the server's model, a pytree.
      slots: S.

    Raises:
      UserError: it cannot be traced, or it returns no model like the server's, naming what it returns.
    """
    if not registry.is_own(config.name):
        return
    if isinstance(choice.device, AllModels):
        _same_model(config.name, _model_of_function(config, choice.device, layout, params, slots), params)
    elif isinstance(choice.kernel, AggregationKernel):
        _check_functions(config, choice.kernel, layout, params, slots)


def _model_of_function(config: Any, kernel: AllModels, layout: Layout, params: Any, slots: int) -> Any:
    """Shapes of the model that a function of all models returns."""

    def whole(params: Any, models: Any, bits: Any, weights: Any, rate: Any) -> Any:
        return kernel.function(StackedUpdates(layout, params, models, bits, weights, rate, config.byzantine))

    weights = jax.ShapeDtypeStruct((slots,), jnp.float32)
    arguments = params, _stacked(params, slots), _bits(layout, slots), weights, _FLOAT
    found = registry.call(KEY, config.name, jax.eval_shape, whole, *arguments)
    if not kernel.counts_kept:
        return found
    if not isinstance(found, robust.Robust) or getattr(found.kept, "shape", None) != ():
        raise _refuse(config.name, f"a {type(found).__name__}", f"robust.Robust({MODEL}, an int32), as it has least")
    return found.params


def _check_functions(config: Any, kernel: AggregationKernel, layout: Layout, params: Any, slots: int) -> None:
    """`init`, `add` of one arrival, and `close`, in turn."""

    def whole(params: Any, stack: Any, bits: Any, weights: Any, rate: Any) -> tuple[Any, Any, Any]:
        held = before = kernel.init(params, stack, bits)
        one = tuple(b[0] for b in bits)
        held = kernel.add(held, Arrivals(jnp.int32(0), jnp.bool_(True), params, one, params, rate))
        step = kernel.close(
            CloseInputs(layout, params, held, weights, rate, rate, config.byzantine, lambda x: x, lambda x: x)
        )
        return before, held, step

    weights = jax.ShapeDtypeStruct((slots,), jnp.float32)
    arguments = params, _stacked(params, slots), _bits(layout, slots), weights, _FLOAT
    before, held, step = registry.call(KEY, config.name, jax.eval_shape, whole, *arguments)
    for what, found, kind in (("init", before, Accumulator), ("add", held, Accumulator), ("close", step, ServerStep)):
        if not isinstance(found, kind):
            allowed = f"a prfl_jax.aggregate.kernels.{kind.__name__}"
            raise _refuse(config.name, f"a {type(found).__name__} in {what}", allowed)
    for what, found in (("add", held), ("close", before._replace(total=step.total))):
        if not _alike(found, before):
            raise _refuse(config.name, f"other arrays in {what} than in init", "the same pytree, shapes and types")
    if kernel.counts_kept != (getattr(step.kept, "shape", None) == ()):
        raise _refuse(config.name, f"kept={step.kept}", "an int32 with counts_kept, else ()")
    _same_model(config.name, step.params, params)


def _stacked(params: Any, slots: int) -> Any:
    return jax.tree.map(lambda w: jax.ShapeDtypeStruct((slots, *w.shape), w.dtype), params)


def _bits(layout: Layout, slots: int) -> tuple[Any, ...]:
    return tuple(jax.ShapeDtypeStruct((slots, bits_length(n)), jnp.uint8) for n in layout.sizes())


def _same_model(name: str, found: Any, params: Any) -> None:
    """Refuses shapes of a model that differ from the server's."""
    if str(jax.tree.structure(found)) != str(jax.tree.structure(params)):
        raise _refuse(name, "another pytree", MODEL)
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(params), strict=True):
        if (got.shape, got.dtype) != (want.shape, want.dtype):
            raise _refuse(
                name, f"a leaf of shape {got.shape}, {got.dtype}, for one of {want.shape}, {want.dtype}", MODEL
            )


def _alike(found: Any, want: Any) -> bool:
    shapes = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)] for tree in (found, want)]
    return str(jax.tree.structure(found)) == str(jax.tree.structure(want)) and shapes[0] == shapes[1]


def _refuse(name: str, found: str, allowed: str) -> UserError:
    return UserError(f"{KEY}: the kernel of {name!r} gives {found}; allowed: {allowed}")

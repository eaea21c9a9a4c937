"""Kernels that look at the models of all slots at once: the package's by name, and a user's own, checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from prfl_jax import registry
from prfl_jax.aggregate import robust
from prfl_jax.aggregate.choices import Aggregation
from prfl_jax.aggregate.stacked import Held
from prfl_jax.submodel.layout import Layout, bits_length
from prfl_jax.system.errors import UserError


def kernel_at_once(choice: Aggregation) -> Callable[[Held], Any] | None:
    """The kernel of a choice, from `Held` to the next server model (with `least` `robust.Robust`); else None."""
    if not choice.at_once:
        return None
    kernel = choice.kernel
    return getattr(robust, kernel) if isinstance(kernel, str) else kernel


def check_kernel(config: Any, choice: Aggregation, layout: Layout, params: Any, slots: int) -> None:
    """Refuses a kernel of a user's own that gives no model like the server's; computes nothing.

    Args:
      config: the group `aggregation` of a config.
      params: shapes of the server's model, a pytree.
      slots: S.

    Raises:
      UserError: naming what it gives; or it cannot be traced.
    """
    kernel = kernel_at_once(choice)
    if kernel is None or not registry.is_own(config.name):
        return
    key, allowed = "config.aggregation.name", "a pytree like held.params"
    models = jax.tree.map(lambda w: jax.ShapeDtypeStruct((slots, *w.shape), w.dtype), params)
    bits = tuple(jax.ShapeDtypeStruct((slots, bits_length(n)), jnp.uint8) for n in layout.sizes())
    weights, rate = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((slots,), ()))

    def whole(params: Any, models: Any, bits: Any, weights: Any, rate: Any) -> Any:
        return kernel(Held(layout, params, models, bits, weights, rate, config.byzantine))

    found = registry.call(key, config.name, jax.eval_shape, whole, params, models, bits, weights, rate)
    if choice.robust:
        allowed = f"robust.Robust({allowed}, an int32), as it has least"
        if not isinstance(found, robust.Robust) or getattr(found.kept, "shape", None) != ():
            raise UserError(f"{key}: the kernel of {config.name!r} gives a {type(found).__name__}; allowed: {allowed}")
        found = found.params
    if str(jax.tree.structure(found)) != str(jax.tree.structure(params)):
        raise UserError(f"{key}: the kernel of {config.name!r} gives another pytree; allowed: {allowed}")
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(params), strict=True):
        if (got.shape, got.dtype) != (want.shape, want.dtype):
            said = f"a leaf of shape {got.shape}, {got.dtype}, for one of {want.shape}, {want.dtype}"
            raise UserError(f"{key}: the kernel of {config.name!r} gives {said}; allowed: {allowed}")

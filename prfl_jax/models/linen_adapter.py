"""Turns a Flax linen module into pure functions over params and fixed variables (`variables.Functions`)."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
from flax import errors, traverse_util
from flax.core.scope import Scope

from prfl_jax.models.inputs import batch_shape, module_input, zeros
from prfl_jax.models.matmul_conv import with_matmul_conv
from prfl_jax.models.training_switch import call_switch, fields_switch, length_argument
from prfl_jax.models.variables import Functions, Noise, Params, as_float32, named_key, parts, whole
from prfl_jax.system.jax_settings import root_key
from prfl_jax.tasks import SampleSpec

THROWN_AWAY = ("intermediates", "perturbations")  # collections of what a call shows, not of what a module keeps
_patched = threading.RLock()


def linen_functions(name: str, module: nn.Module, sample: SampleSpec) -> Functions:
    """A linen module that gets samples `[B, ...]`; its convolutions become matrix products by interception.

    In training each collection of random numbers that the module asks for gets a key of its own; in evaluation there
    are none, unless the module asks for a key (which `module_checks` then finds to change nothing).

    Args:
      name: of the model, for the text of an error.
      sample: what it is given.

    Raises:
      UserError: its `__call__` has an argument that is not known.
      Exception: whatever the user's code raises.
    """
    switches_for, lengths = call_switch(name, type(module), sample.words), length_argument(type(module))
    fields = fields_switch(module, switches_for(True)[1])
    by_mode = {train: module.clone(**found) if (found := fields(train)) else module for train in (False, True)}

    @with_matmul_conv
    def variables(key: jax.Array) -> dict[str, Any]:
        by_place, options = switches_for(False)
        rngs = {"params": key, "dropout": key}
        x, more = module_input(sample, lengths, zeros(sample, 1))
        made = by_mode[False].init(rngs, x, *by_place, **options, **more)
        return {kind: tree for kind, tree in nn.meta.unbox(dict(made)).items() if kind not in THROWN_AWAY}

    def init(key: jax.Array) -> Params:
        return variables(key).get("params", {})

    def fixed(key: jax.Array) -> Params:
        return {kind: tree for kind, tree in variables(key).items() if kind != "params" and jax.tree.leaves(tree)}

    kinds = jax.eval_shape(lambda: fixed(root_key(0)))

    @with_matmul_conv
    def call(tree: Params, x: jax.Array, train: bool, rngs: dict[str, jax.Array] | None) -> tuple[Any, Any, Any]:
        """(outputs, fixed variables before, and after)."""
        params, before = parts(tree, kinds)
        by_place, options = switches_for(train)
        # what is written is not kept: `module_checks` has found that it is what was there
        mutable: Any = list(before) or False
        x, more = module_input(sample, lengths, x)
        out = by_mode[train].apply(
            {"params": params, **before}, x, *by_place, rngs=rngs, mutable=mutable, **options, **more
        )
        return (out[0], before, out[1]) if mutable else (out, {}, {})

    shapes = jax.eval_shape(lambda: whole(init(root_key(0)), fixed(root_key(0))))

    @functools.cache
    def asked(train: bool, size: int) -> tuple[tuple[str, ...], Noise]:
        """(collections of random numbers the module asks for with so many samples, what becomes of them)."""
        batch = batch_shape(sample, size)
        known: tuple[str, ...] = ("dropout",) if train else ()
        while True:
            with _watched() as (names, drawn, silent, classes):

                def trace(tree: Params, x: jax.Array, known: tuple[str, ...] = known) -> Any:
                    return call(tree, x, train, {kind: root_key(0) for kind in known})[0]

                try:
                    jax.eval_shape(trace, shapes, batch)
                except errors.InvalidRngError:
                    pass  # it is known now what it asks for
            if names <= set(known):
                return known, Noise(bool(drawn), tuple(silent), frozenset({type(module), *classes}))
            known = tuple(sorted(names | set(known)))

    asked_in_evaluation = asked(False, 1)[0]  # now: whoever intercepts a later call should see the module called once

    def rngs_of(train: bool, size: int, key: jax.Array | None) -> dict[str, jax.Array] | None:
        if train and key is None:
            return None
        source = root_key(0) if key is None else key
        names = asked(True, size)[0] if train else asked_in_evaluation
        return {name: named_key(source, name) for name in names} or None

    def apply(tree: Params, x: jax.Array, train: bool, key: jax.Array | None) -> Any:
        return as_float32(call(tree, x, train, rngs_of(train, len(x), key))[0])

    def rewritten(tree: Params, x: jax.Array, train: bool, key: jax.Array) -> dict[str, tuple[Any, Any]]:
        _, before, after = call(tree, x, train, rngs_of(train, len(x), key))
        old, new = (traverse_util.flatten_dict(part, sep="/") for part in (before, after))
        return {path: (old.get(path), value) for path, value in new.items() if old.get(path) is not value}

    return Functions(init, fixed, apply, rewritten, lambda size: asked(True, size)[1])


@contextmanager
def _watched() -> Iterator[tuple[set[str], list[str], list[str], list[type]]]:
    """While a module is traced: (random collections asked for, those drawn of, silent dropout layers, classes called).

    Flax does not report which collections a module uses, so two methods of its scope are observed meanwhile.
    """
    names: set[str] = set()
    drawn: list[str] = []
    silent: list[str] = []
    classes: list[type] = []
    make_rng, has_rng = Scope.make_rng, Scope.has_rng
    drawing = threading.local()

    def watched_make(scope: Scope, name: str = "params") -> Any:
        names.add(name)
        drawing.now = True
        try:
            key = make_rng(scope, name)
        finally:
            drawing.now = False
        drawn.append(name)
        return key

    def watched_has(scope: Scope, name: str) -> bool:
        if not getattr(drawing, "now", False):
            names.add(name)
        return has_rng(scope, name)

    def interceptor(function: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        out = function(*args, **kwargs)
        layer = context.module
        classes.append(type(layer))
        if isinstance(layer, nn.Dropout) and context.method_name == "__call__" and layer.rate > 0:
            given = args[0] if args else kwargs.get("inputs")
            if out is given:
                silent.append("/".join(layer.path) or type(layer).__name__)
        return out

    with _patched:
        Scope.make_rng, Scope.has_rng = watched_make, watched_has  # type: ignore[method-assign, assignment]
        try:
            with nn.intercept_methods(interceptor):
                yield names, drawn, silent, classes
        finally:
            Scope.make_rng, Scope.has_rng = make_rng, has_rng  # type: ignore[method-assign]

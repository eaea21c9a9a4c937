"""Turns a Flax linen module into pure functions over params, state and fixed variables (`variables.Functions`)."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from flax import errors, traverse_util
from flax.core.scope import Scope

from prfl_jax.models.flop_count import BATCH
from prfl_jax.models.inputs import batch_shape, module_input, zeros
from prfl_jax.models.matmul_conv import with_matmul_conv
from prfl_jax.models.training_switch import call_switch, fields_switch, length_argument
from prfl_jax.models.variables import (
    Functions,
    Kinds,
    Noise,
    Params,
    as_float32,
    as_shapes,
    as_state,
    beside_state,
    check_state,
    named_key,
    parts,
    with_state,
)
from prfl_jax.system.jax_settings import root_key
from prfl_jax.tasks import SampleSpec

THROWN_AWAY = ("intermediates", "perturbations")  # collections of what a call shows, not of what a module keeps
_patched = threading.RLock()


class Asked(NamedTuple):
    """What a call of a module needs and does: collections of random numbers, what becomes of them, variables written.

    `written` has (shape before, shape after) by path; before is None for a variable that was not there.
    """

    names: tuple[str, ...]
    noise: Noise
    written: dict[str, tuple[Any, Any]]


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

    def others(made: dict[str, Any]) -> dict[str, Any]:
        """Collections of variables that are no params."""
        return {kind: tree for kind, tree in made.items() if kind != "params" and jax.tree.leaves(tree)}

    shapes = jax.eval_shape(lambda: variables(root_key(0)))

    @with_matmul_conv
    def call(
        params: Params, held: Params, x: jax.Array, train: bool, rngs: dict[str, jax.Array] | None
    ) -> tuple[Any, Params]:
        """(outputs, the variables `held` after the call)."""
        by_place, options = switches_for(train)
        mutable: Any = list(held) or False
        x, more = module_input(sample, lengths, x)
        out = by_mode[train].apply(
            {"params": params, **held}, x, *by_place, rngs=rngs, mutable=mutable, **options, **more
        )
        return out if mutable else (out, {})

    @functools.cache
    def asked(train: bool, size: int) -> Asked:
        """Of a call with so many samples."""
        batch = batch_shape(sample, size)
        known: tuple[str, ...] = ("dropout",) if train else ()
        written: dict[str, tuple[Any, Any]] = {}
        while True:
            with _watched() as (names, drawn, silent, classes):

                def trace(made: Params, x: jax.Array, known: tuple[str, ...] = known) -> Any:
                    held = others(made)
                    out, after = call(made.get("params", {}), held, x, train, {kind: root_key(0) for kind in known})
                    written.update({path: as_shapes(pair) for path, pair in _replaced(held, after).items()})
                    return out

                try:
                    jax.eval_shape(trace, shapes, batch)
                except errors.InvalidRngError:
                    pass  # it is known now what it asks for
            if names <= set(known):
                noise = Noise(bool(drawn), tuple(silent), frozenset({type(module), *classes}))
                return Asked(known, noise, written)
            known = tuple(sorted(names | set(known)))

    asked_in_evaluation = asked(False, 1).names  # now: whoever intercepts a later call sees the module called once
    state_paths = check_state(name, asked(True, BATCH).written) if others(shapes) else frozenset()

    def divided(held: Params) -> tuple[Params, Params]:
        """(fixed variables, state)."""
        if not state_paths:
            return held, {}
        flat = traverse_util.flatten_dict(held, sep="/")
        state = {path: value for path, value in flat.items() if path in state_paths}
        rest = {path: value for path, value in flat.items() if path not in state_paths}
        return traverse_util.unflatten_dict(rest, sep="/"), traverse_util.unflatten_dict(state, sep="/")

    kinds = Kinds(*divided(others(shapes)))

    def init(key: jax.Array) -> Params:
        made = variables(key)
        return with_state(made.get("params", {}), divided(others(made))[1])

    def fixed(key: jax.Array) -> Params:
        return divided(others(variables(key)))[0] if kinds.fixed else {}

    def rngs_of(train: bool, size: int, key: jax.Array | None) -> dict[str, jax.Array] | None:
        if train and key is None:
            return None
        source = root_key(0) if key is None else key
        names = asked(True, size).names if train else asked_in_evaluation
        return {name: named_key(source, name) for name in names} or None

    def run(tree: Params, x: jax.Array, train: bool, key: jax.Array | None) -> tuple[Any, Params, Params]:
        """(outputs, variables before, and after)."""
        params, constant, state = parts(tree, kinds)
        held = _merged(constant, state) if state else constant
        out, after = call(params, held, x, train, rngs_of(train, len(x), key))
        return as_float32(out), held, after

    def step(tree: Params, x: jax.Array, key: jax.Array | None) -> tuple[Any, Params]:
        out, _, after = run(tree, x, True, key)
        return out, jax.tree.map(as_state, divided(after)[1])

    def rewritten(tree: Params, x: jax.Array, train: bool, key: jax.Array) -> dict[str, tuple[Any, Any]]:
        return _replaced(*run(tree, x, train, key)[1:])

    return Functions(
        init,
        fixed,
        lambda tree, x, train, key: run(tree, x, train, key)[0],
        step,
        rewritten,
        lambda size: asked(True, size).noise,
        beside_state(
            traverse_util.flatten_dict(shapes.get("params", {}), sep="/"),
            (path.partition("/")[2] for path in state_paths),  # without the collection
        ),
    )


def _replaced(before: Params, after: Params) -> dict[str, tuple[Any, Any]]:
    """{path: (before, after)} of variables that are another array after a call."""
    old, new = (traverse_util.flatten_dict(part, sep="/") for part in (before, after))
    return {path: (old.get(path), value) for path, value in new.items() if old.get(path) is not value}


def _merged(one: Params, other: Params) -> Params:
    """Both trees in one."""
    flat = [traverse_util.flatten_dict(tree, sep="/") for tree in (one, other)]
    return traverse_util.unflatten_dict(flat[0] | flat[1], sep="/")


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

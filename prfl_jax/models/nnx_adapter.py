"""Turns a Flax nnx class into pure functions over params, state and fixed variables (`variables.Functions`)."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx, traverse_util

from prfl_jax.models.flop_count import BATCH
from prfl_jax.models.inputs import batch_shape, module_input
from prfl_jax.models.matmul_conv import convolution
from prfl_jax.models.training_switch import NONE, build_switch, call_switch, length_argument, setting
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
    parts,
    text_keys,
    whole,
    with_state,
)
from prfl_jax.system.jax_settings import root_key
from prfl_jax.tasks import SampleSpec


def nnx_functions(name: str, module_class: type, make: Callable[..., Any], sample: SampleSpec) -> Functions:
    """An nnx class whose modules get samples `[B, ...]`; its convolutions become matrix products.

    The module is built anew in each trace, always with the same key, so that nothing in it changes. Then its params and
    fixed variables are put in, and what it draws random numbers from is taken of a module built with the step's key.

    Args:
      name: of the model, for the text of an error.
      make: (**training switches, rngs=) -> a module.
      sample: what its modules are given.

    Raises:
      UserError: its `__call__` has an argument that is not known.
      Exception: whatever the user's code raises.
    """
    switches_for, lengths = call_switch(name, module_class, sample.words), length_argument(module_class)
    built_with = build_switch(module_class.__init__, switches_for(True)[1])  # type: ignore[misc]

    def build(key: jax.Array, train: bool) -> Any:
        rngs = nnx.Rngs(jax.random.fold_in(key, 2), params=key, dropout=jax.random.fold_in(key, 1))
        module = make(rngs=rngs, **built_with(train))
        for _, part in list(nnx.iter_graph(module)):
            if isinstance(part, nnx.Conv):
                part.conv_general_dilated = convolution()
            for attribute, value in list(vars(part).items()) if isinstance(part, nnx.Module) else []:
                if isinstance(value, jax.Array):  # under a trace Flax does not see that it is one
                    setattr(part, attribute, nnx.data(value))
        return module

    def values(module: Any, which: Any) -> Params:
        """A module's values as a tree."""
        return text_keys(nnx.to_pure_dict(nnx.state(module, which)))

    def put(module: Any, which: Any, tree: Params, train: bool) -> None:
        """Puts values into a module."""
        state = nnx.state(module, which)
        here, given = len(jax.tree.leaves(nnx.to_pure_dict(state))), len(jax.tree.leaves(tree))
        if here != given:
            raise ValueError(f"built for {'training' if train else 'evaluation'} it has {here} arrays, not {given}")
        nnx.replace_by_pure_dict(state, tree)
        nnx.update(module, state)

    def written(size: int) -> dict[str, tuple[Any, Any]]:
        """(shape before, shape after) of the variables that a call in training writes, params aside."""
        found: dict[str, tuple[Any, Any]] = {}

        def trace(x: jax.Array) -> None:
            module, (by_place, options) = build(root_key(0), True), switches_for(True)
            _tell(module, True)
            before = _values(module, nnx.Param)
            x, more = module_input(sample, lengths, x)
            module(x, *by_place, **options, **more)
            found.update(
                {path: as_shapes(pair) for path, pair in _replaced(before, _values(module, nnx.Param)).items()}
            )

        jax.eval_shape(trace, batch_shape(sample, size))
        return found

    keeps = jax.tree.leaves(jax.eval_shape(lambda: values(build(root_key(0), False), _is_fixed)))
    state_paths = check_state(name, written(BATCH)) if keeps else frozenset()

    def is_state(path: Any, leaf: Any) -> bool:
        return _joined(path) in state_paths and _is_fixed(path, leaf)

    def is_constant(path: Any, leaf: Any) -> bool:
        return _is_fixed(path, leaf) and _joined(path) not in state_paths

    def trained() -> Params:
        return values(build(root_key(0), False), nnx.Param)

    def init(key: jax.Array) -> Params:
        module = build(key, False)
        return with_state(values(module, nnx.Param), values(module, is_state))

    def fixed(key: jax.Array) -> Params:
        return values(build(key, False), is_constant) if kinds.fixed else {}

    kinds = Kinds(
        *jax.eval_shape(lambda: [values(build(root_key(0), False), which) for which in (is_constant, is_state)])
    )

    def ready(tree: Params, train: bool, key: jax.Array | None) -> Any:
        """The module with these values, before its call."""
        module = build(root_key(0), train)
        for part, which in zip(parts(tree, kinds), (nnx.Param, is_constant, is_state), strict=True):
            put(module, which, part, train)
        if key is not None:
            nnx.update(module, nnx.state(build(key, train), nnx.RngState))
        _tell(module, train)
        return module

    def run(tree: Params, x: jax.Array, train: bool, key: jax.Array | None) -> tuple[Any, Any, dict[str, Any]]:
        """(outputs, the module after the call, its values before it)."""
        module, (by_place, options) = ready(tree, train, key), switches_for(train)
        before = _values(module)
        x, more = module_input(sample, lengths, x)
        return as_float32(module(x, *by_place, **options, **more)), module, before

    def step(tree: Params, x: jax.Array, key: jax.Array | None) -> tuple[Any, Params]:
        out, module, _ = run(tree, x, True, key)
        return out, jax.tree.map(as_state, values(module, is_state))

    def rewritten(tree: Params, x: jax.Array, train: bool, key: jax.Array) -> dict[str, tuple[Any, Any]]:
        _, module, before = run(tree, x, train, key)
        return _replaced(before, _values(module))

    shapes = jax.eval_shape(lambda: whole(init(root_key(0)), fixed(root_key(0))))

    @functools.cache
    def noise(size: int) -> Noise:
        found: list[Noise] = []

        def trace(tree: Params, x: jax.Array) -> Any:
            module, (by_place, options) = ready(tree, True, root_key(0)), switches_for(True)
            layers = {
                _joined(path): part
                for path, part in nnx.iter_graph(module)
                if isinstance(part, nnx.Dropout) and part.rate > 0
            }
            before, all_before = {path: _counts(part) for path, part in layers.items()}, _counts(module)
            x, more = module_input(sample, lengths, x)
            out = module(x, *by_place, **options, **more)
            drew = _differ(all_before, _counts(module))
            quiet = [path for path, part in layers.items() if part.deterministic or part.rngs is not None]
            silent = [path for path in quiet if not _differ(before[path], _counts(layers[path]))]
            classes = frozenset(type(part) for _, part in nnx.iter_graph(module) if isinstance(part, nnx.Module))
            found.append(Noise(drew, tuple(silent), classes))
            return out

        jax.eval_shape(trace, shapes, batch_shape(sample, size))
        return found[-1]

    return Functions(
        init,
        fixed,
        lambda tree, x, train, key: run(tree, x, train, key)[0],
        step,
        rewritten,
        noise,
        beside_state(traverse_util.flatten_dict(jax.eval_shape(trained), sep="/"), state_paths),
    )


def _joined(path: Any) -> str:
    return "/".join(map(str, path))


def _replaced(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """{path: (before, after)} of values that are another array after a call."""
    return {path: (before.get(path), value) for path, value in after.items() if before.get(path) is not value}


def _is_fixed(path: Any, leaf: Any) -> bool:
    """Whether a leaf of a module's state is an array that is neither trained nor a state of random numbers.

    A NumPy array that is a plain attribute belongs to the code, such as the indices of a permutation.
    """
    if isinstance(leaf, nnx.Param | nnx.RngState):
        return False
    value = leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf
    if isinstance(leaf, nnx.Variable):
        return hasattr(value, "shape") and hasattr(value, "dtype")
    return isinstance(value, jax.Array)


def _values(module: Any, *without: type) -> dict[str, Any]:
    """Raw values of all variables and arrays, by path, but those that count random numbers or show intermediates.

    Args:
      without: further types of variables that are left out.
    """
    return {
        _joined(path): leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf
        for path, leaf in nnx.to_flat_state(nnx.state(module))
        if not isinstance(leaf, (nnx.RngState, nnx.Intermediate, *without))
    }


def _counts(module: Any) -> list[Any]:
    """How often each stream of random numbers was used, as objects that a use replaces."""
    return [leaf.get_value() for _, leaf in nnx.to_flat_state(nnx.state(module, nnx.RngCount))]


def _differ(before: list[Any], after: list[Any]) -> bool:
    return len(before) != len(after) or any(a is not b for a, b in zip(before, after, strict=True))


def _tell(module: Any, train: bool) -> None:
    """Switches a module and its parts by `train()` and `eval()`, and by attributes of their own for it."""
    switch = getattr(module, "train" if train else "eval", None)
    if callable(switch):
        switch()
    else:  # an attribute of that name hides it
        (nnx.Module.train if train else nnx.Module.eval)(module)
    for _, part in nnx.iter_graph(module):
        if not isinstance(part, nnx.Module):
            continue
        for name, value in list(vars(part).items()):
            if isinstance(value, bool | str | enum.Enum):
                wanted = setting(name, value, NONE, train)
                if wanted is not NONE and wanted != value:
                    setattr(part, name, wanted)

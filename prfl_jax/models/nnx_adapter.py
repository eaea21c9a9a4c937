"""Turns a Flax nnx class into pure functions over params and fixed variables (`variables.Functions`)."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from prfl_jax.models.inputs import batch_shape, module_input
from prfl_jax.models.matmul_conv import convolution
from prfl_jax.models.training_switch import NONE, build_switch, call_switch, length_argument, setting
from prfl_jax.models.variables import Functions, Noise, Params, as_float32, parts, text_keys, whole
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

    def init(key: jax.Array) -> Params:
        return text_keys(nnx.to_pure_dict(nnx.state(build(key, False), nnx.Param)))

    def fixed(key: jax.Array) -> Params:
        return text_keys(nnx.to_pure_dict(nnx.state(build(key, False), _is_fixed)))

    kinds = jax.eval_shape(lambda: fixed(root_key(0)))

    def ready(tree: Params, train: bool, key: jax.Array | None) -> Any:
        """The module with these values, before its call."""
        module = build(root_key(0), train)
        filters: tuple[Any, Any] = (nnx.Param, _is_fixed)
        for values, which in zip(parts(tree, kinds), filters, strict=True):
            state = nnx.state(module, which)
            here, given = len(jax.tree.leaves(nnx.to_pure_dict(state))), len(jax.tree.leaves(values))
            if here != given:
                raise ValueError(f"built for {'training' if train else 'evaluation'} it has {here} arrays, not {given}")
            nnx.replace_by_pure_dict(state, values)
            nnx.update(module, state)
        if key is not None:
            nnx.update(module, nnx.state(build(key, train), nnx.RngState))
        _tell(module, train)
        return module

    def apply(tree: Params, x: jax.Array, train: bool, key: jax.Array | None) -> Any:
        by_place, options = switches_for(train)
        x, more = module_input(sample, lengths, x)
        return as_float32(ready(tree, train, key)(x, *by_place, **options, **more))

    def rewritten(tree: Params, x: jax.Array, train: bool, key: jax.Array) -> dict[str, tuple[Any, Any]]:
        module, (by_place, options) = ready(tree, train, key), switches_for(train)
        before = _values(module)
        x, more = module_input(sample, lengths, x)
        module(x, *by_place, **options, **more)
        after = _values(module)
        return {path: (before.get(path), value) for path, value in after.items() if before.get(path) is not value}

    shapes = jax.eval_shape(lambda: whole(init(root_key(0)), fixed(root_key(0))))

    @functools.cache
    def noise(size: int) -> Noise:
        found: list[Noise] = []

        def trace(tree: Params, x: jax.Array) -> Any:
            module, (by_place, options) = ready(tree, True, root_key(0)), switches_for(True)
            layers = {
                "/".join(map(str, path)): part
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

    return Functions(init, fixed, apply, rewritten, noise)


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


def _values(module: Any) -> dict[str, Any]:
    """Raw values of all variables and arrays, by path, but those that count random numbers or show intermediates."""
    return {
        "/".join(map(str, path)): leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf
        for path, leaf in nnx.to_flat_state(nnx.state(module))
        if not isinstance(leaf, nnx.RngState | nnx.Intermediate)
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

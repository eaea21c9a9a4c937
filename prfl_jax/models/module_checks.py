"""Checks a user's module before a run: outputs must depend on each sample alone, and only state may change by a call.

Where targets are the next tokens, outputs must not depend on later steps either.

Small batches are checked by numbers; the run's own batches by their traced programs alone, unless those differ.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from prfl_jax.models.batch_checks import FEW, BatchChecks
from prfl_jax.models.checked_module import Module, Sizes, batch_of, draw, refused
from prfl_jax.models.traced import fingerprint, grows_with_batch
from prfl_jax.models.training_switch import WORDS
from prfl_jax.models.variables import STATE, Params, split_state, whole, with_state
from prfl_jax.system.host_memory import host_available
from prfl_jax.system.jax_settings import root_key

MANY = 256  # of one that is traced, where no batch of the run is known
SPREADS = (0.05, 0.5, 2.0)  # of what is added to params, of their own size: a branch may begin with a factor of 0
COPIES = 8  # of the params, that `_check_numbers` has at a time, with what it draws them from
_asked_before: list[tuple[Any, ...]] = []  # (the user's object, sample, classes, sequence, causal, sizes, warnings)


def check_once(module: Module, sizes: Sizes) -> tuple[str, ...]:
    """Like `check`, but only once in a process for the same object and shapes: several experiments share a model."""
    asked = [module.sample, module.classes, module.sequence, module.causal, sizes]
    for source, *before, warnings in _asked_before:
        if source is module.source and before == asked:
            return tuple(warnings)
    warnings = check(module, sizes)
    _asked_before.append((module.source, *asked, warnings))
    return warnings


def check(module: Module, sizes: Sizes) -> tuple[str, ...]:
    """Runs all checks; returns warnings, one line each.

    Raises:
      UserError: the module cannot be used; one line.
      Exception: what the user's code raises in training, or for one of the batches.
    """
    functions, key = module.functions, root_key(0)
    params, fixed = jax.eval_shape(lambda: (functions.init(key), functions.fixed(key)))
    tree = whole(params, fixed)
    for size in (1, 2, *sizes.evaluated):
        out = jax.eval_shape(lambda t, x: functions.apply(t, x, False, None), tree, batch_of(module, size))
        module.check_outputs(out, size)
    for size in sizes.trained:
        _check_training(module, params, fixed, size)
    _check_repeatable(module, tree, sizes.trained[0])
    warnings = _warnings(module, sizes.trained[0])
    need, there = COPIES * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)), host_available()
    if there is not None and need > there:  # a run hardly fits either, and says so
        others = f"is not checked for outputs that depend on other {module.sample.kind.name}"
        why = f"that takes {need / 1e9:,.0f} GB of memory, and {there / 1e9:,.1f} GB are free"
        return (*warnings, f"config.model.name: {module.name!r} {others}: {why}")
    _check_numbers(module, sizes)
    return tuple(warnings)


def _check_training(module: Module, params: Params, fixed: Params, size: int) -> None:
    """Traces a training step's gradient."""

    def loss(p: Params, fixed: Params, x: jax.Array) -> jax.Array:
        out, _ = module.functions.step(whole(p, fixed), x, root_key(0))
        module.check_outputs(out, size)
        return jnp.sum(out)

    jax.eval_shape(jax.grad(loss), params, fixed, batch_of(module, size))


def _check_repeatable(module: Module, tree: Params, trained: int) -> None:
    """Traces each function twice: random numbers and counters of plain Python differ between the two traces."""
    functions, key, x = module.functions, root_key(0), batch_of(module, 2)
    batch = batch_of(module, trained)
    asked: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "its initial values": (lambda k: (functions.init(k), functions.fixed(k)), (key,)),
        "its outputs in evaluation": (lambda t, x: functions.apply(t, x, False, None), (tree, x)),
        "its outputs in training": (functions.step, (tree, batch, key)),
    }
    for what, (function, args) in asked.items():
        # each as a function of its own: JAX keeps what it has traced
        first, second = (fingerprint(lambda *a, f=function: f(*a), *args) for _ in range(2))
        if first != second:
            raise refused(
                module,
                f"is not repeatable: {what} differ each time its code runs, with the same key; allowed: random numbers "
                "from JAX keys (make_rng or rngs), none from NumPy or Python",
            )


def _check_numbers(module: Module, sizes: Sizes) -> None:
    """Checks by computing that outputs depend on no other sample, batch size or random key, and no variable changes."""
    functions, rng = module.functions, np.random.default_rng(0)
    params, fixed = jax.jit(lambda k: (functions.init(k), functions.fixed(k)))(root_key(0))
    trained, state = split_state(params)
    variants = [trained, *(_spread(trained, spread, rng) for spread in SPREADS)]
    trees = [whole(with_state(variant, state), fixed) for variant in variants]
    if state:  # as a step of training leaves it
        step, x = (
            jax.jit(lambda t, x: functions.step(t, x, root_key(0))[1]),
            draw(module.sample, FEW, rng, normal=True),
        )
        trees = [trees[0], *({**tree, STATE: step(tree, x)} for tree in trees[1:])]
    _check_unchanged(module, trees, rng, sizes.trained[0])

    @jax.jit
    def evaluate(tree: Params, x: jax.Array, seed: Any) -> jax.Array:
        with jax.default_matmul_precision("highest"):  # else nothing could be distinguished from rounding
            return functions.apply(tree, x, False, jax.random.key(seed))

    asked = BatchChecks(module, evaluate, rng)
    asked.check_few(trees)
    if module.causal:
        asked.check_later_steps(trees)
    shapes = jax.eval_shape(lambda: trees[0])
    few = fingerprint(lambda t, x: functions.apply(t, x, False, None), shapes, batch_of(module, FEW))
    for size in sorted({*sizes.evaluated, MANY} - {1, FEW}):
        many = fingerprint(lambda t, x: functions.apply(t, x, False, None), shapes, batch_of(module, size))
        if not grows_with_batch(few, many, FEW, size):
            asked.check_size(trees[1], size)


def _spread(params: Params, spread: float, rng: np.random.Generator) -> Params:
    """Params with normal noise of about their own size."""

    def one(leaf: Any) -> np.ndarray:
        w = np.asarray(leaf, np.float32)
        size = np.sqrt(np.mean(np.square(w, dtype=np.float64))) if w.size else 0.0
        return (w + spread * (size + 0.1) * rng.normal(size=w.shape)).astype(np.float32)

    return jax.tree.map(one, params)


def _check_unchanged(module: Module, trees: Sequence[Params], rng: np.random.Generator, trained: int) -> None:
    """Raises UserError where a call in evaluation changes a variable, or one in training what is no state."""
    state = _paths(split_state(trees[0])[1])
    for train, size in ((False, FEW), (True, trained)):
        x = draw(module.sample, size, rng, normal=True)

        def call(tree: Params, x: Any, key: jax.Array, train: bool = train) -> Any:
            return module.functions.rewritten(tree, x, train, key)

        skipped = state if train else set()
        shapes = jax.eval_shape(call, trees[0], x, root_key(0))
        if not shapes.keys() - skipped:
            continue
        differ = {path for path, (before, _) in shapes.items() if before is None}
        skipped |= differ
        compiled = jax.jit(
            lambda *args, call=call, skipped=skipped: {p: pair for p, pair in call(*args).items() if p not in skipped}
        )
        for tree in trees:
            for path, (before, after) in compiled(tree, x, root_key(1)).items():
                same = before.shape == after.shape and np.array_equal(_numbers(before), _numbers(after), equal_nan=True)
                if not same:
                    differ.add(path)
        if differ:
            names = ", ".join(sorted(differ)[:3]) + (", ..." if len(differ) > 3 else "")
            raise refused(
                module,
                f"keeps state between calls ({names}: changed by a call in {'training' if train else 'evaluation'}), "
                "such as a counter or statistics of the batch in evaluation; allowed: params, float32 state that "
                "changes in training alone, and variables that stay what they are (or GroupNorm or LayerNorm)",
            )


def _paths(tree: Params) -> set[str]:
    """Paths of a state's variables, as `Functions.rewritten` has them."""
    return set(traverse_util.flatten_dict(tree, sep="/"))


def _numbers(array: Any) -> np.ndarray:
    out = np.asarray(array)
    return out.astype(np.float64) if not np.issubdtype(out.dtype, np.integer) and out.dtype != bool else out


_DROPOUT = re.compile(r"\b(\w*dropout|\w*drop_?path|\w*stochastic_?depth|bernoulli)\(", re.IGNORECASE)
_RATE_0 = re.compile(r"dropout\w*\(\s*(rate\s*=\s*)?0(\.0*)?\s*[,)]", re.IGNORECASE)


def _warnings(module: Module, trained: int) -> list[str]:
    """Warnings about dropout that does nothing in training."""
    noise, begin = module.functions.noise(trained), f"config.model.name: {module.name!r}"
    advice = f"; if it should, let its __call__ take one of {WORDS}"
    if noise.silent:
        layers = ", ".join(noise.silent[:3]) + (", ..." if len(noise.silent) > 3 else "")
        return [f"{begin} has dropout that drops nothing in training ({layers}){advice}"]
    if noise.drawn:
        return []
    for kind in sorted(noise.classes, key=str):
        if not kind.__module__.startswith("flax.") and (name := _dropout_in(kind)):
            return [f"{begin} names {name} but draws no random numbers in training{advice}"]
    return []


def _dropout_in(kind: type) -> str | None:
    """The name of a dropout layer in the source of a class; None if there is none, or no source."""
    try:
        lines = inspect.getsource(kind).splitlines()
    except (OSError, TypeError):
        return None
    code = "\n".join(line.split("#")[0] for line in lines)
    found = _DROPOUT.search(code)
    return found.group(1) if found and not _RATE_0.search(code) else None

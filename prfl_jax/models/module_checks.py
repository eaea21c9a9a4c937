"""Checks a user's module before a run: outputs may depend on their own sample alone, and no call may change a variable.

Outputs of small batches are computed and compared. Batches of the run's own sizes are only traced, and computed where
the traced program differs from that of a small batch.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prfl_jax.models.inputs import batch_shape, output_shape
from prfl_jax.models.traced import fingerprint, grows_with_batch, lowest_float
from prfl_jax.models.training_switch import WORDS
from prfl_jax.models.variables import Functions, Params, whole
from prfl_jax.system.errors import UserError
from prfl_jax.system.host_memory import host_available
from prfl_jax.system.jax_settings import root_key
from prfl_jax.tasks import SEQUENCES, SampleSpec

FEW = 5  # samples of the batch in which every position is checked
MANY = 256  # samples of a batch that is traced besides the run's own sizes
# How much a sample's outputs may differ between two batch sizes, relative to the largest output: rounding differs.
# By bytes of the narrowest float; ten times as much with params far from the initial ones.
ROUNDING = {4: 1e-4, 2: 0.2, 1: 0.5}
SPREADS = (0.05, 0.5, 2.0)  # of noise relative to the params: with initial ones a branch may have a factor of 0


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Batch sizes of the coming run, as far as they are known.

    Attributes:
      evaluated: samples of a batch on each device in evaluation.
      trained: samples of a client's local step.
    """

    evaluated: tuple[int, ...] = ()
    trained: tuple[int, ...] = (2,)


@dataclasses.dataclass(frozen=True)
class Module:
    """A module to be checked.

    Attributes:
      name: name of the model, for error messages.
      sample: what it is given of one sample.
      classes: number of outputs.
      functions: its pure functions, from an adapter.
      source: the module or its class, whose code is searched for dropout.
    """

    name: str
    sample: SampleSpec
    classes: int
    functions: Functions
    source: Any
    sequence: bool = False

    def check_outputs(self, out: Any, size: int) -> None:
        """As `check_outputs`, of a batch of `size` samples."""
        check_outputs(self.name, output_shape(self.sample, self.classes, self.sequence, size), out, self.sample)


COPIES = 8  # of the params that `_check_numbers` holds at a time, random numbers for them included
_asked_before: list[tuple[Any, ...]] = []  # (the user's object, sample, classes, sequence, sizes, warnings)


def check_once(module: Module, sizes: Sizes) -> tuple[str, ...]:
    """Calls `check` once in a process for the same object and shapes, since several experiments may share a model."""
    for source, *shapes, warnings in _asked_before:
        if source is module.source and shapes == [module.sample, module.classes, module.sequence, sizes]:
            return tuple(warnings)
    warnings = check(module, sizes)
    _asked_before.append((module.source, module.sample, module.classes, module.sequence, sizes, warnings))
    return warnings


def check(module: Module, sizes: Sizes) -> tuple[str, ...]:
    """Runs all checks; returns warnings, one line each.

    Raises:
      UserError: the module cannot be used; one line.
      Exception: raised by the user's code in training, or for one of the batches.
    """
    functions, key = module.functions, root_key(0)
    params, fixed = jax.eval_shape(lambda: (functions.init(key), functions.fixed(key)))
    tree = whole(params, fixed)
    for size in (1, 2, *sizes.evaluated):
        out = jax.eval_shape(lambda t, x: functions.apply(t, x, False, None), tree, _batch(module, size))
        module.check_outputs(out, size)
    for size in sizes.trained:
        _check_training(module, params, fixed, size)
    _check_repeatable(module, tree, sizes.trained[0])
    warnings = _warnings(module, sizes.trained[0])
    need, there = COPIES * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)), host_available()
    if there is not None and need > there:  # the run itself hardly fits either, and says so
        why = f"the check takes {need / 1e9:,.0f} GB of memory, {there / 1e9:,.1f} GB are available"
        unchecked = "is not checked for outputs that depend on other samples"
        return (*warnings, f"config.model.name: {module.name!r} {unchecked}: {why}")
    _check_numbers(module, sizes)
    return tuple(warnings)


def _batch(module: Module, size: int) -> jax.ShapeDtypeStruct:
    return batch_shape(module.sample, size)


def _refused(module: Module, what: str) -> UserError:
    return UserError(f"config.model.name: {module.name!r} {what}")


def check_outputs(name: str, wanted: tuple[int, ...], out: Any, sample: SampleSpec) -> None:
    """Checks that outputs are floats of the wanted shape (`inputs.output_shape`).

    Raises:
      UserError: the outputs have another shape or type, which the text names.
    """
    one = sample.kind.one
    samples = f"{wanted[0]} {one if wanted[0] == 1 or one.endswith('s') else f'{one}s'}"
    found = getattr(out, "shape", f"a {type(out).__name__}")
    if found != wanted:
        raise UserError(f"config.model.name: {name!r} returns {found} for {samples}; allowed: {wanted}")
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise UserError(f"config.model.name: {name!r} returns {out.dtype} outputs; allowed: floats, one a class")


def _check_training(module: Module, params: Params, fixed: Params, size: int) -> None:
    """Traces the gradient of a training step; raises what the user's code raises."""

    def loss(p: Params, fixed: Params, x: jax.Array) -> jax.Array:
        out = module.functions.apply(whole(p, fixed), x, True, root_key(0))
        module.check_outputs(out, size)
        return jnp.sum(out)

    jax.eval_shape(jax.grad(loss), params, fixed, _batch(module, size))


def _check_repeatable(module: Module, tree: Params, trained: int) -> None:
    """Traces each function twice, since random numbers and counters of plain Python differ between two traces."""
    functions, key, x = module.functions, root_key(0), _batch(module, 2)
    batch = _batch(module, trained)
    asked: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "its initial values": (lambda k: (functions.init(k), functions.fixed(k)), (key,)),
        "its outputs in evaluation": (lambda t, x: functions.apply(t, x, False, None), (tree, x)),
        "its outputs in training": (lambda t, x, k: functions.apply(t, x, True, k), (tree, batch, key)),
    }
    for what, (function, args) in asked.items():
        # a new function each time, since JAX caches traces
        first, second = (fingerprint(lambda *a, f=function: f(*a), *args) for _ in range(2))
        if first != second:
            raise _refused(
                module,
                f"is not repeatable: {what} differ each time its code runs, with the same key; allowed: random numbers "
                "from JAX keys (make_rng or rngs), none from NumPy or Python",
            )


def _check_numbers(module: Module, sizes: Sizes) -> None:
    """Computes outputs: they may depend on no other sample, batch size or random key, and no variable may change."""
    functions, rng = module.functions, np.random.default_rng(0)
    params, fixed = jax.jit(lambda k: (functions.init(k), functions.fixed(k)))(root_key(0))
    variants = [params, *(_spread(params, spread, rng) for spread in SPREADS)]
    trees = [whole(variant, fixed) for variant in variants]
    _check_unchanged(module, trees, rng, sizes.trained[0])

    @jax.jit
    def evaluate(tree: Params, x: jax.Array, seed: Any) -> jax.Array:
        with jax.default_matmul_precision("highest"):  # so that rounding hides no dependence
            return functions.apply(tree, x, False, jax.random.key(seed))

    asked = _Asked(module, evaluate, rng)
    asked.check_few(trees)
    shapes = jax.eval_shape(lambda: trees[0])
    few = fingerprint(lambda t, x: functions.apply(t, x, False, None), shapes, _batch(module, FEW))
    for size in sorted({*sizes.evaluated, MANY} - {1, FEW}):
        many = fingerprint(lambda t, x: functions.apply(t, x, False, None), shapes, _batch(module, size))
        if not grows_with_batch(few, many, FEW, size):
            asked.check_size(trees[1], size)


def _spread(params: Params, spread: float, rng: np.random.Generator) -> Params:
    """Adds normal noise to params, of about `spread` times their root mean square."""

    def one(leaf: Any) -> np.ndarray:
        w = np.asarray(leaf, np.float32)
        size = np.sqrt(np.mean(np.square(w, dtype=np.float64))) if w.size else 0.0
        return (w + spread * (size + 0.1) * rng.normal(size=w.shape)).astype(np.float32)

    return jax.tree.map(one, params)


def _check_unchanged(module: Module, trees: Sequence[Params], rng: np.random.Generator, trained: int) -> None:
    """Raises UserError if a call in evaluation or training changes a variable."""
    for train, size in ((False, FEW), (True, trained)):
        x = _draw(module.sample, size, rng, normal=True)

        def call(tree: Params, x: Any, key: jax.Array, train: bool = train) -> Any:
            return module.functions.rewritten(tree, x, train, key)

        shapes = jax.eval_shape(call, trees[0], x, root_key(0))
        if not shapes:
            continue
        new = [path for path, (before, _) in shapes.items() if before is None]
        differ = set(new)
        compiled = jax.jit(lambda *args, call=call: {p: pair for p, pair in call(*args).items() if pair[0] is not None})
        for tree in trees:
            for path, (before, after) in compiled(tree, x, root_key(1)).items():
                same = before.shape == after.shape and np.array_equal(_numbers(before), _numbers(after), equal_nan=True)
                if not same:
                    differ.add(path)
        if differ:
            names = ", ".join(sorted(differ)[:3]) + (", ..." if len(differ) > 3 else "")
            raise _refused(
                module,
                f"keeps state between calls ({names}: changed by a call in {'training' if train else 'evaluation'}), "
                "such as batch statistics or a counter; allowed: params, and variables that no call changes "
                "(use GroupNorm or LayerNorm instead of batch statistics)",
            )


def _numbers(array: Any) -> np.ndarray:
    """Converts floats of any type to float64, in which NumPy can compare them."""
    out = np.asarray(array)
    return out.astype(np.float64) if not np.issubdtype(out.dtype, np.integer) and out.dtype != bool else out


def _draw(sample: SampleSpec, size: int, rng: np.random.Generator, normal: bool) -> np.ndarray:
    """Draws a batch of samples: tokens, else normal values or values in [0, 1)."""
    shape = (size, *sample.shape)
    if sample.kind is SEQUENCES:
        return rng.integers(0, max(sample.tokens, 1), shape, np.int32)
    return (rng.normal(size=shape) if normal else rng.uniform(size=shape)).astype(np.float32)


class _Asked:
    """Evaluates one module on batches that differ in all samples but one."""

    def __init__(self, module: Module, evaluate: Callable[..., Any], rng: np.random.Generator) -> None:
        self._module, self._evaluate, self._rng = module, evaluate, rng

    def _out(self, tree: Params, x: np.ndarray, seed: int = 0) -> np.ndarray:
        """Returns outputs `[B, values of a sample]`."""
        out = np.asarray(self._evaluate(tree, x.astype(self._module.sample.dtype), seed), np.float64)
        return out.reshape(len(x), -1)

    def _samples(self, number: int, size: int) -> np.ndarray:
        """Draws `size` samples; of numbers normal values if `number` is odd, else values in [0, 1]."""
        return _draw(self._module.sample, size, self._rng, normal=number % 2 == 1)

    def _neighbours(self, x: np.ndarray, position: int) -> tuple[np.ndarray, ...]:
        """Returns batches to put beside one sample: zeros, copies of it, large values or other tokens."""
        if self._module.sample.kind is SEQUENCES:
            strange = self._samples(0, len(x))
        else:
            strange = 30 * self._rng.normal(size=x.shape)
        return np.zeros_like(x), np.broadcast_to(x[position], x.shape), strange

    def check_few(self, trees: Sequence[Params]) -> None:
        """Checks a batch of `FEW` samples: every position beside others, each sample alone, and two random keys."""
        tolerance = ROUNDING[lowest_float(lambda t, x: self._evaluate(t, x, 0), trees[0], _batch(self._module, FEW))]
        apart = np.zeros(FEW, int)
        for number, tree in enumerate(trees):
            x = self._samples(number, FEW)
            base = self._out(tree, x)
            if number == 0 and not np.isfinite(base).all():
                raise _refused(
                    self._module,
                    "gives outputs that are not finite with its initial weights, for values in [0, 1]; allowed: finite "
                    "outputs",
                )
            noise = _distance(base, self._out(tree, x))  # 0, unless the device sums in varying order
            if (found := _distance(base, self._out(tree, x, seed=1))) > 10 * noise:
                raise _refused(
                    self._module,
                    f"draws random numbers in evaluation (outputs change by {found:.2g} with the key); allowed: none; "
                    "switch them off by a known training switch (train, deterministic, ...)",
                )
            for position in range(FEW):
                self._check_neighbours(tree, x, base, position, noise)
            alone = np.concatenate([self._out(tree, x[k : k + 1]) for k in range(FEW)])
            apart += _far(base, alone, tolerance * (1 if number < 2 else 10))
        if (apart >= 2).any():
            raise self._depends(f"outputs of a sample alone and in a batch of {FEW} differ")

    def check_size(self, tree: Params, size: int) -> None:
        """Checks the first, middle and last position of a batch of `size` samples."""
        tolerance = ROUNDING[lowest_float(lambda t, x: self._evaluate(t, x, 0), tree, _batch(self._module, size))]
        positions = sorted({0, size // 2, size - 1})
        apart = np.zeros(len(positions), int)
        for number in range(2):
            x = self._samples(number, size)
            base = self._out(tree, x)
            noise = _distance(base, self._out(tree, x))
            for position in positions:
                self._check_neighbours(tree, x, base, position, noise)
            alone = np.concatenate([self._out(tree, x[k : k + 1]) for k in positions])
            apart += _far(base[positions], alone, tolerance)
        if (apart == 2).any():
            raise self._depends(f"outputs of a sample alone and in a batch of {size} differ")

    def _check_neighbours(self, tree: Params, x: np.ndarray, base: np.ndarray, position: int, noise: float) -> None:
        """Replaces the samples beside `position`: its outputs must not change, to the bit."""
        for others in self._neighbours(x, position):
            other = np.array(others)
            other[position] = x[position]
            found = _distance(base[position], self._out(tree, other)[position])
            floor = 0.0 if jax.default_backend() == "cpu" else 5e-7 * _largest(base)
            if found > max(10 * noise, floor):
                raise self._depends(
                    f"outputs of the sample at position {position} of {len(x)} change by {found:.2g} with the other "
                    "samples"
                )

    def _depends(self, how: str) -> UserError:
        return _refused(
            self._module,
            f"mixes the samples of its batch in evaluation: {how}; allowed: outputs that depend on their own sample "
            "alone (use GroupNorm or LayerNorm instead of batch statistics)",
        )


def _largest(values: np.ndarray) -> float:
    """Returns the largest finite magnitude; 0 if no value is finite."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max(initial=0.0))


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the largest difference of two arrays; infinite if only one of two values is finite."""
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(a - b))
    return float(np.where(np.isnan(apart), np.inf, apart).max(initial=0.0))


def _far(a: np.ndarray, b: np.ndarray, tolerance: float) -> np.ndarray:
    """Returns 1 for rows that differ by more than `tolerance` of the largest finite value, else 0."""
    with np.errstate(invalid="ignore"):
        apart = np.where(np.isfinite(a) & np.isfinite(b), np.abs(a - b), 0.0).max(axis=1)
    return (apart > tolerance * max(_largest(a), 1e-30)).astype(int)


_DROPOUT = re.compile(r"\b(\w*dropout|\w*drop_?path|\w*stochastic_?depth|bernoulli)\(", re.IGNORECASE)
_RATE_0 = re.compile(r"dropout\w*\(\s*(rate\s*=\s*)?0(\.0*)?\s*[,)]", re.IGNORECASE)


def _warnings(module: Module, trained: int) -> list[str]:
    """Returns warnings about dropout that has no effect in training."""
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
    """Returns the name of a dropout layer in the source of a class; None if there is no such layer or no source."""
    try:
        lines = inspect.getsource(kind).splitlines()
    except (OSError, TypeError):
        return None
    code = "\n".join(line.split("#")[0] for line in lines)
    found = _DROPOUT.search(code)
    return found.group(1) if found and not _RATE_0.search(code) else None

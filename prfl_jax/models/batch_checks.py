"""Checks by numbers that a module's outputs in evaluation depend on no other sample, batch size, key or later step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from prfl_jax.models.checked_module import Module, batch_of, draw, refused
from prfl_jax.models.inputs import TOKENS
from prfl_jax.models.traced import lowest_float
from prfl_jax.models.variables import Params
from prfl_jax.system import accelerator
from prfl_jax.system.errors import UserError
from prfl_jax.tasks import IMAGES, SEQUENCES

FEW = 5  # samples of the batch that is looked at in full
# How much a sample's outputs may differ between two shapes of batch, of the largest output: rounding is another there.
ROUNDING = {4: 1e-4, 2: 0.2, 1: 0.5}  # by bytes of the narrowest float; ten times that with params far from the first
# How much the outputs at a step may change with later steps, of the largest output: convolutions by FFT round them.
LEAKED = {4: 1e-5, 2: 1e-2, 1: 0.1}  # by bytes of the narrowest float; ten times that with params far from the first
CUTS = 4 * FEW  # steps after which later ones are changed, at most


class BatchChecks:
    """Evaluates one module on batches that differ in all samples but one."""

    def __init__(self, module: Module, evaluate: Callable[..., Any], rng: np.random.Generator) -> None:
        self._module, self._evaluate, self._rng = module, evaluate, rng
        self._kind = module.sample.kind
        self._one = f"an {one}" if (one := self._kind.one)[0] in "aeiou" else f"a {one}"

    def _out(self, tree: Params, x: np.ndarray, seed: int = 0) -> np.ndarray:
        """Outputs `[B, values of a sample]`."""
        out = np.asarray(self._evaluate(tree, x.astype(self._module.sample.dtype), seed), np.float64)
        return out.reshape(len(x), -1)

    def _samples(self, number: int, size: int) -> np.ndarray:
        """Samples of several kinds: normal values, and values in [0, 1]."""
        return draw(self._module.sample, size, self._rng, normal=number % 2 == 1)

    def _inputs(self) -> str:
        """The first batch in words, and what is allowed."""
        tokens = self._module.sample.tokens
        if self._kind is not SEQUENCES or not tokens:
            return f"{'pixels' if self._kind is IMAGES else 'values'} in [0, 1]; allowed: finite ones"
        return (
            f"tokens 0..{tokens - 1}; allowed: finite ones, so an embedding of {tokens} tokens or more, whose number "
            f"the module's class is given as an argument {TOKENS[0]}"
        )

    def _neighbours(self, x: np.ndarray, position: int) -> tuple[np.ndarray, ...]:
        """Batches to put beside one sample: zeros, copies of it, large values or other tokens."""
        if self._kind is SEQUENCES:
            strange = self._samples(0, len(x))
        else:
            strange = 30 * self._rng.normal(size=x.shape)
        return np.zeros_like(x), np.broadcast_to(x[position], x.shape), strange

    def check_few(self, trees: Sequence[Params]) -> None:
        """Checks all positions of a small batch, each sample alone, and two random keys."""
        tolerance = ROUNDING[lowest_float(lambda t, x: self._evaluate(t, x, 0), trees[0], batch_of(self._module, FEW))]
        apart = np.zeros(FEW, int)
        for number, tree in enumerate(trees):
            x = self._samples(number, FEW)
            base = self._out(tree, x)
            if number == 0 and not np.isfinite(base).all():
                raise refused(
                    self._module,
                    f"gives outputs that are not finite with its initial weights, for {self._inputs()}",
                )
            noise = _distance(base, self._out(tree, x))  # 0, unless the device adds up in any order
            if (found := _distance(base, self._out(tree, x, seed=1))) > 10 * noise:
                raise refused(
                    self._module,
                    f"draws random numbers in evaluation (outputs change by {found:.2g} with the key); allowed: none; "
                    "switch them off by a known training switch (train, deterministic, ...)",
                )
            for position in range(FEW):
                self._check_neighbours(tree, x, base, position, noise)
            alone = np.concatenate([self._out(tree, x[k : k + 1]) for k in range(FEW)])
            apart += _far(base, alone, tolerance * (1 if number < 2 else 10))
        if (apart >= 2).any():
            raise self._depends(f"outputs of {self._one} alone and in a batch of {FEW} differ")

    def check_size(self, tree: Params, size: int) -> None:
        """Checks a few positions of a batch of `size` samples."""
        tolerance = ROUNDING[lowest_float(lambda t, x: self._evaluate(t, x, 0), tree, batch_of(self._module, size))]
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
            raise self._depends(f"outputs of {self._one} alone and in a batch of {size} differ")

    def check_later_steps(self, trees: Sequence[Params]) -> None:
        """Checks that outputs up to a step stay what they are when samples change after it.

        Each row of a batch has a step of its own: rows are known to be independent (`check_few`).
        """
        steps = self._module.sample.shape[0]
        full = dataclasses.replace(self._module.sample, padded=False)
        cuts = np.unique(np.linspace(0, steps - 2, min(CUTS, steps - 1)).round().astype(int))
        what = "tokens" if self._kind is SEQUENCES else "values"
        tolerance = LEAKED[lowest_float(lambda t, x: self._evaluate(t, x, 0), trees[0], batch_of(self._module, FEW))]
        for number, tree in enumerate(trees):
            x = draw(full, FEW, self._rng, normal=number % 2 == 1)
            base, again = self._by_step(tree, x), self._by_step(tree, x)
            allowed = max(10 * _largest(_apart(base, again)), tolerance * (1 if number < 2 else 10) * _largest(base))
            for first in range(0, len(cuts), FEW):
                last = np.resize(cuts[first : first + FEW], FEW)[:, None]  # the last step that stays, of each row
                later = np.arange(steps)[None] > last
                out = self._by_step(tree, np.where(later.reshape(*later.shape, *[1] * (x.ndim - 2)), self._other(x), x))
                if (found := _largest(_apart(base, out)[~later])) > allowed:
                    raise refused(
                        self._module,
                        f"looks ahead at later steps: outputs change by {found:.2g} with {what} after "
                        "their step, which are the targets; allowed: outputs of each step from that step and those "
                        "before it (a causal mask in attention, no backward direction, no mean over all steps)",
                    )

    def _by_step(self, tree: Params, x: np.ndarray) -> np.ndarray:
        """Outputs `[B, T, values]`."""
        return self._out(tree, x).reshape(*x.shape[:2], -1)

    def _other(self, x: np.ndarray) -> np.ndarray:
        """Samples that differ from `x` in every value; tokens among those that there are."""
        if self._kind is SEQUENCES:
            tokens = max(self._module.sample.tokens, 1)
            return (x + self._rng.integers(1, max(tokens, 2), x.shape)) % tokens
        return x + 1 + self._rng.uniform(size=x.shape)

    def _check_neighbours(self, tree: Params, x: np.ndarray, base: np.ndarray, position: int, noise: float) -> None:
        """Runs the same program beside other samples (zeros, copies, large values); outputs must be equal."""
        for others in self._neighbours(x, position):
            other = np.array(others)
            other[position] = x[position]
            found = _distance(base[position], self._out(tree, other)[position])
            floor = 0.0 if accelerator.on_cpu() else 5e-7 * _largest(base)
            if found > max(10 * noise, floor):
                raise self._depends(
                    f"outputs of the {self._kind.one} at position {position} of {len(x)} change by {found:.2g} with "
                    f"the other {self._kind.name}"
                )

    def _depends(self, how: str) -> UserError:
        return refused(
            self._module,
            f"mixes the {self._kind.name} of its batch in evaluation: {how}; allowed: outputs that depend on their own "
            f"{self._kind.one} alone (use GroupNorm or LayerNorm instead of batch statistics)",
        )


def _largest(values: np.ndarray) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max(initial=0.0))


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference; infinite where one is finite and the other not."""
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(a - b))
    return float(np.where(np.isnan(apart), np.inf, apart).max(initial=0.0))


def _apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Absolute differences; 0 where one is NaN or infinite."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(a) & np.isfinite(b), np.abs(a - b), 0.0)


def _far(a: np.ndarray, b: np.ndarray, tolerance: float) -> np.ndarray:
    """1 for rows that differ by more than `tolerance` of the largest value, else 0; NaN and infinity are ignored."""
    apart = _apart(a, b).max(axis=1)
    return (apart > tolerance * max(_largest(a), 1e-30)).astype(int)

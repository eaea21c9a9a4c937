"""`Module`: a user's module that is checked before a run; the batches for it, and the check of its outputs."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prfl_jax.models.inputs import batch_shape, output_shape
from prfl_jax.models.variables import Functions
from prfl_jax.system.errors import UserError
from prfl_jax.tasks import SEQUENCES, SampleSpec
from prfl_jax.tasks.sample import pad


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Batch sizes of the coming run, as far as they are known.

    Attributes:
      evaluated: of each device in evaluation.
      trained: of a client's step.
    """

    evaluated: tuple[int, ...] = ()
    trained: tuple[int, ...] = (2,)


@dataclasses.dataclass(frozen=True)
class Module:
    """A module to be checked.

    Attributes:
      name: of the model, for the text of an error.
      sample: what it is given of one sample.
      classes: number of outputs.
      functions: its pure functions, made by an adapter.
      source: the module or its class, whose code is searched for dropout.
      sequence: whether each step of a sample has outputs.
      causal: whether those must not depend on later steps.
    """

    name: str
    sample: SampleSpec
    classes: int
    functions: Functions
    source: Any
    sequence: bool = False
    causal: bool = False

    def check_outputs(self, out: Any, size: int) -> None:
        """As `check_outputs`, of a batch of `size` samples."""
        check_outputs(self.name, output_shape(self.sample, self.classes, self.sequence, size), out, self.sample)


def refused(module: Module, what: str) -> UserError:
    """The error for a module, in one line (to be raised)."""
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


def batch_of(module: Module, size: int) -> jax.ShapeDtypeStruct:
    """The shape of a batch of `size` samples."""
    return batch_shape(module.sample, size)


def draw(sample: SampleSpec, size: int, rng: np.random.Generator, normal: bool) -> np.ndarray:
    """A batch of samples: tokens, else normal values or values in [0, 1); where samples are padded, of any length."""
    shape = (size, *sample.shape)
    if sample.kind is SEQUENCES:
        x = rng.integers(0, max(sample.tokens, 1), shape, np.int32)
    else:
        x = (rng.normal(size=shape) if normal else rng.uniform(size=shape)).astype(np.float32)
    return pad(x, rng.integers(1, sample.shape[0] + 1, size)) if sample.padded else x

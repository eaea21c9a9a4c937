"""What a module is given of samples: their values without padding, their lengths, and arrays of their shape."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prfl_jax.system.errors import UserError
from prfl_jax.tasks import FEATURES, IMAGES, SEQUENCES, SampleKind, SampleSpec

TOKENS = ("tokens", "num_tokens", "vocab_size", "vocabulary", "num_embeddings")  # arguments of a module's class


class Takes(NamedTuple):
    """The samples that a built-in network takes.

    Attributes:
      words: in messages.
      axes: of the array of one sample.
      kinds: of samples; None: any.
    """

    words: str
    axes: int
    kinds: tuple[SampleKind, ...] | None = None

    def check(self, name: str, sample: SampleSpec) -> None:
        """Raises UserError, which names the network, where it does not take such samples."""
        if len(sample.shape) != self.axes or (self.kinds is not None and sample.kind not in self.kinds):
            raise UserError(f"config.model.name: {name!r} does not take {sample.words}; allowed: {self.words}")
        if sample.kind is SEQUENCES and not sample.tokens:
            raise UserError(f"config.model.name: {name!r} needs the number of tokens, which the data set does not tell")


IMAGES_OF_ANY_SIZE = Takes("images (H, W, C)", 3)
SERIES = Takes("series (T, C)", 2, (FEATURES,))
TOKEN_SEQUENCES = Takes("token sequences (T,)", 1, (SEQUENCES,))


def as_sample(sample: SampleSpec | tuple[int, ...]) -> SampleSpec:
    """A sample as it is, or an image of that shape."""
    return sample if isinstance(sample, SampleSpec) else SampleSpec(tuple(sample))


def zeros(sample: SampleSpec, size: int) -> jax.Array:
    """A batch of `size` samples of zeros, as a model is given it."""
    return jnp.zeros((size, *sample.shape), sample.dtype)


def batch_shape(sample: SampleSpec, size: int) -> jax.ShapeDtypeStruct:
    """The shape and type of a batch of `size` samples."""
    return jax.ShapeDtypeStruct((size, *sample.shape), sample.dtype)


def output_shape(sample: SampleSpec, classes: int, sequence: bool, size: int) -> tuple[int, ...]:
    """The shape of the logits of `size` samples: `[B, classes]`, with a target at each step `[B, T, classes]`."""
    return (size, *sample.shape[:1], classes) if sequence else (size, classes)


def module_input(sample: SampleSpec, argument: str | None, x: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
    """(samples with 0 in place of padding, the lengths `[B]` int32 under the name of the module's argument).

    Args:
      argument: of `training_switch.length_argument`.
      x: `[B, ...]`, with padding (`tasks/sample.py`).
    """
    if sample.kind is IMAGES or not (sample.padded or argument):
        return x, {}
    there = x >= 0 if jnp.issubdtype(x.dtype, jnp.integer) else ~jnp.isnan(x)
    lengths = jnp.sum(there.reshape(*x.shape[:2], -1).any(axis=-1), axis=1, dtype=jnp.int32)
    return jnp.where(there, x, jnp.zeros((), x.dtype)), {argument: lengths} if argument else {}

"""What a module is given of samples: their values without padding, their lengths, and arrays of their shape."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from prfl_jax.tasks import IMAGES, SampleSpec

TOKENS = ("tokens", "num_tokens", "vocab_size", "vocabulary", "num_embeddings")  # arguments of a module's class


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

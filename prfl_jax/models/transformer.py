"""A small causal Transformer over tokens (Vaswani et al. 2017), with the norm in front of each part (as GPT-2)."""

from __future__ import annotations

import math
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from prfl_jax.models.architectures import scaled
from prfl_jax.models.inputs import TOKEN_SEQUENCES, Takes
from prfl_jax.models.nets import dense_by_size
from prfl_jax.models.recurrent import last_step

BLOCKS, HEADS, HEAD_SIZE = 4, 4, 32
SPREAD = 0.02  # deviation of the first vectors of tokens and positions (GPT-2)


def rows_dense(x: jax.Array, features: int, init: str, name: str) -> jax.Array:
    """A dense layer on the last axis, as one product of two matrices."""
    out = dense_by_size(x.reshape(-1, x.shape[-1]), features, init, name)
    return out.reshape(*x.shape[:-1], features)


class Block(nn.Module):
    """Attention to the present and to earlier steps, then a dense layer of four times the width; both are added."""

    init_name: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, T, D]` to `[B, T, D]`."""
        batch, steps, size = x.shape
        h = nn.LayerNorm(name="norm0")(x)
        query, key, value = (
            rows_dense(h, size, self.init_name, name).reshape(batch, steps, HEADS, -1)
            for name in ("query", "key", "value")
        )
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(size // HEADS)
        seen = jnp.tril(jnp.ones((steps, steps), bool))
        weights = nn.softmax(jnp.where(seen, scores, jnp.finfo(scores.dtype).min), axis=-1)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(x.shape)
        x = x + rows_dense(mixed, size, self.init_name, "mixed")
        h = rows_dense(nn.LayerNorm(name="norm1")(x), 4 * size, self.init_name, "dense0")
        return x + rows_dense(nn.gelu(h), size, self.init_name, "dense1")


class TransformerLM(nn.Module):
    """Vectors of 128 for tokens and positions, four blocks with four heads, the output.

    Attributes:
      classes: outputs.
      tokens: number of tokens.
      width: multiplies the 32 numbers of each head.
      init_name: release | he | flax, of the dense layers.
      sequence: whether each step has outputs, else only the last one.
    """

    classes: int
    tokens: int
    width: float = 1.0
    init_name: str = "release"
    sequence: bool = True

    takes: ClassVar[Takes] = TOKEN_SEQUENCES

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        """Tokens `[B, T]` and their lengths to logits `[B, T, classes]`, or `[B, classes]`.

        What follows a sample's last step is seen by no step of it.
        """
        size, init = HEADS * scaled(HEAD_SIZE, self.width), nn.initializers.normal(SPREAD)
        positions = self.param("positions", init, (x.shape[1], size))
        h = nn.Embed(self.tokens, size, embedding_init=init, name="embedding")(x) + positions
        for number in range(BLOCKS):
            h = Block(self.init_name, name=f"block{number}")(h)
        h = nn.LayerNorm(name="norm")(h)
        return rows_dense(
            h if self.sequence else last_step(h.transpose(1, 0, 2), lengths), self.classes, self.init_name, "output"
        )

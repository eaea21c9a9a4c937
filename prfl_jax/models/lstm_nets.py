"""Networks of stacked LSTM layers over tokens: LEAF's for characters and for tweets, FedMP's for words."""

from __future__ import annotations

from typing import ClassVar

import flax.linen as nn
import jax

from prfl_jax.models.architectures import scaled
from prfl_jax.models.choices import INITS
from prfl_jax.models.inputs import TOKEN_SEQUENCES, Takes
from prfl_jax.models.nets import dense_by_size
from prfl_jax.models.recurrent import LSTM, last_step


def embed(x: jax.Array, tokens: int, size: int, init: str) -> jax.Array:
    """Vectors of tokens `[B, T]`, steps first: `[T, B, size]`."""
    return nn.Embed(tokens, size, embedding_init=INITS.find(init).embedding, name="embedding")(x.T)


def output(h: jax.Array, classes: int, init: str, lengths: jax.Array | None = None) -> jax.Array:
    """Logits of every step of `[T, B, H]`, `[B, T, classes]`; with lengths `[B]` of the last one, `[B, classes]`."""
    if lengths is not None:
        return dense_by_size(last_step(h, lengths), classes, init, "output")
    steps, batch, size = h.shape
    logits = dense_by_size(h.reshape(-1, size), classes, init, "output")
    return logits.reshape(steps, batch, classes).transpose(1, 0, 2)


class CharLSTM(nn.Module):
    """LEAF's network for Shakespeare (Caldas et al. 2018): embedding of 8, two LSTM layers of 256, the output.

    Attributes:
      classes: outputs.
      tokens: characters.
      width: multiplies the hidden width of the LSTM layers; the embedding keeps its size.
      init_name: release | he | flax.
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
        """Tokens `[B, T]` and their lengths to logits `[B, T, classes]`, or `[B, classes]`."""
        h = embed(x, self.tokens, 8, self.init_name)
        for layer in range(2):
            h = LSTM(scaled(256, self.width), self.init_name, name=f"lstm{layer}")(h)
        return output(h, self.classes, self.init_name, None if self.sequence else lengths)


class WordLSTM(nn.Module):
    """FedMP's language model (two stacked LSTM layers), in the sizes of Zaremba et al. 2014, medium.

    An embedding of 650, two LSTM layers of 650 and the output, with dropout of a half behind the embedding and behind
    each layer. Each sequence begins with a state of zeros.

    Attributes:
      classes: outputs.
      tokens: words.
      width: multiplies 650.
      init_name: release | he | flax.
      sequence: whether each step has outputs, else only the last one.
    """

    classes: int
    tokens: int
    width: float = 1.0
    init_name: str = "release"
    sequence: bool = True

    takes: ClassVar[Takes] = TOKEN_SEQUENCES

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array, train: bool = False) -> jax.Array:
        """Tokens `[B, T]` and their lengths to logits `[B, T, classes]`, or `[B, classes]`."""
        units = scaled(650, self.width)
        h = nn.Dropout(0.5, deterministic=not train)(embed(x, self.tokens, units, self.init_name))
        for layer in range(2):
            h = LSTM(units, self.init_name, name=f"lstm{layer}")(h)
            h = nn.Dropout(0.5, deterministic=not train)(h)
        return output(h, self.classes, self.init_name, None if self.sequence else lengths)


class TextLSTM(nn.Module):
    """A small classifier of texts, after LEAF's for Sent140: two LSTM layers of 100, a dense layer of 30, the output.

    LEAF reads 300 numbers of GloVe for each word; here an embedding of 50 is learned.

    Attributes:
      classes: outputs.
      tokens: words.
      width: multiplies all hidden widths, the embedding's too.
      init_name: release | he | flax.
    """

    classes: int
    tokens: int
    width: float = 1.0
    init_name: str = "release"

    takes: ClassVar[Takes] = TOKEN_SEQUENCES

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        """Tokens `[B, T]` and their lengths to logits `[B, classes]`."""
        h = embed(x, self.tokens, scaled(50, self.width), self.init_name)
        for layer in range(2):
            h = LSTM(scaled(100, self.width), self.init_name, name=f"lstm{layer}")(h)
        last = last_step(h, lengths)
        last = nn.relu(dense_by_size(last, scaled(30, self.width), self.init_name, "dense0"))
        return dense_by_size(last, self.classes, self.init_name, "output")

"""A language model small enough for tests: random token sequences in a .npz, an embedding and a dense layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import tiny

TOKENS, STEPS = 12, 6


class NextToken(nn.Module):
    """A user's own module: tokens `[B, T]` to logits `[B, T, classes]`, each from the token before alone."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(self.classes)(nn.Embed(self.classes, 8)(x))


def write_tokens(file: Path, train: int = 240, test: int = 40, seed: int = 0) -> str:
    """Writes sequences of a noisy counter, so that the next token can be learned; returns the file's path.

    The last target of every fourth sequence is missing (-1).
    """
    rng = np.random.default_rng(seed)
    arrays = {}
    for part, number in (("train", train), ("test", test)):
        steps = rng.choice([1, 1, 1, 2, 5], size=(number, STEPS)).cumsum(axis=1)
        tokens = (rng.integers(TOKENS, size=(number, 1)) + np.pad(steps, ((0, 0), (1, 0)))) % TOKENS
        y = tokens[:, 1:].astype(np.int32)
        y[::4, -1] = -1
        arrays |= {f"x_{part}": tokens[:, :-1].astype(np.int32), f"y_{part}": y}
    np.savez(file, **arrays)
    return str(file)


def config(file: str, strategy: str = "prfl", **changes: Any) -> Any:
    """`tiny.config` of a language model over the sequences of that file."""
    settings = {
        "task__name": "language_model", "data__name": file, "data__partition": "iid", "data__train_limit": None,
        "data__test_limit": None, "model__name": "tiny_text:NextToken", "model__loss": "softmax", "model__init": "flax",
        "local__lr": 1.0, "eval__thresholds": (11.0, 6.0),
    }  # fmt: skip
    return tiny.config(strategy, **{**settings, **changes})

"""Sequences from a random Markov chain, and a module that predicts the next token: a language model for tests."""

from __future__ import annotations

from pathlib import Path

import flax.linen as nn
import jax
import numpy as np

TOKENS, STEPS = 12, 15


class NextToken(nn.Module):
    """A user's own module: an embedding, a hidden layer, logits at each step."""

    classes: int
    tokens: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Dense(16, name="hidden")(nn.Embed(self.tokens, 8, name="embed")(x)))
        return nn.Dense(self.classes, name="out")(x)


def arrays(train: int = 200, test: int = 60) -> dict[str, np.ndarray]:
    """Arrays of a data set; training sequences have 5 to 15 tokens, test sequences 15."""
    rng = np.random.default_rng(0)
    chain = rng.dirichlet(np.full(TOKENS, 0.3), TOKENS).cumsum(axis=1)

    def sequences(number: int) -> np.ndarray:
        out = np.zeros((number, STEPS + 1), np.int32)
        out[:, 0] = rng.integers(0, TOKENS, number)
        for step in range(STEPS):
            out[:, step + 1] = (chain[out[:, step]] < rng.random((number, 1))).sum(axis=1).clip(0, TOKENS - 1)
        return out

    first, second = sequences(train), sequences(test)
    lengths = rng.integers(5, STEPS + 1, train)
    there = np.arange(STEPS) < lengths[:, None]
    return {
        "x_train": first[:, :-1], "y_train": np.where(there, first[:, 1:], -1), "length_train": lengths,
        "x_test": second[:, :-1], "y_test": second[:, 1:], "length_test": np.full(test, STEPS),
    }  # fmt: skip


def write(folder: Path) -> str:
    """Writes the data set, and returns its file for `data.name`."""
    np.savez(folder / "tokens.npz", **arrays())
    return str(folder / "tokens.npz")


# of `tiny.config`
SETTINGS = dict(
    task__name="language_model", model__name="tokens:NextToken", model__loss="softmax", data__partition="iid",
    data__train_limit=None, data__test_limit=None, local__lr=0.5, eval__thresholds=(),
)  # fmt: skip

"""Sequences from a random chain of a few words, as a text for the smoke test: a data plugin that needs no file."""

from __future__ import annotations

import pathlib

import numpy as np

from prfl_jax.data import Dataset

WORDS, STEPS = 16, 8


def chain(folder: pathlib.Path) -> Dataset:
    """Windows of 8 words, each with the next word as target, int32 `[N, 8]`; `folder` is not read."""
    rng = np.random.default_rng(0)
    likely = rng.dirichlet(np.full(WORDS, 0.3), WORDS).cumsum(axis=1)

    def windows(number: int) -> tuple[np.ndarray, np.ndarray]:
        words = np.zeros((number, STEPS + 1), np.int32)
        words[:, 0] = rng.integers(0, WORDS, number)
        for step in range(STEPS):
            following = (likely[words[:, step]] < rng.random((number, 1))).sum(axis=1)
            words[:, step + 1] = following.clip(0, WORDS - 1)
        return words[:, :-1], words[:, 1:]

    (x_train, y_train), (x_test, y_test) = windows(400), windows(60)
    source = f"a random chain of {WORDS} words, drawn with seed 0"
    return Dataset("chain", x_train, y_train, x_test, y_test, num_classes=WORDS, tokens=WORDS, source=source)

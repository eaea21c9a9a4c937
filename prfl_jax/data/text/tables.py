"""Accuracy of tables of counts, the least that a language model should reach on a data set."""

from __future__ import annotations

import numpy as np

from prfl_jax.data.dataset import Dataset


def table_accuracy(data: Dataset, context: int) -> float:
    """Share of the test targets that are the most frequent successor of the `context` tokens before them.

    Successors are counted in the training windows; of equally frequent ones the lowest token counts. Where fewer tokens
    precede a target in its window, or these never stood together, the table of one token less decides; without any
    token it is the most frequent target.

    Args:
      data: windows with a target at each step.
      context: tokens before a target: 1 is a bigram table.
    """
    tokens = np.int64(max(data.num_classes, data.tokens or 0))
    guess = np.full(data.y_test.shape, -1, np.int64)
    for order in range(context, -1, -1):
        keys, best = _table(data.x_train, data.y_train, order, tokens)
        asked = _keys(data.x_test, order, tokens)
        place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
        known = (guess < 0) & (asked >= 0) & (keys[place] == asked)
        guess[known] = best[place[known]]
    there = data.y_test >= 0
    return float((guess == data.y_test)[there].mean())


def _keys(x: np.ndarray, order: int, tokens: np.int64) -> np.ndarray:
    """One number for the `order` tokens up to each step, `[N, T]`; -1 where there are fewer."""
    keys = np.zeros(x.shape, np.int64)
    for back in range(order):
        before = np.full(x.shape, -1, np.int64)
        before[:, back:] = x[:, : x.shape[1] - back]
        keys = np.where((keys < 0) | (before < 0), -1, keys + before * tokens**back)
    return keys


def _table(x: np.ndarray, y: np.ndarray, order: int, tokens: np.int64) -> tuple[np.ndarray, np.ndarray]:
    """The keys that occur, ascending, and the most frequent target of each."""
    keys = _keys(x, order, tokens)
    there = (keys >= 0) & (y >= 0)
    pairs, counts = np.unique(keys[there] * tokens + y[there], return_counts=True)
    ranked = pairs[np.lexsort((pairs, -counts, pairs // tokens))]
    found, first = np.unique(ranked // tokens, return_index=True)
    return found, ranked[first] % tokens

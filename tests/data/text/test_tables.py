"""Accuracy of count tables, against a loop."""

import collections

import numpy as np
import pytest

from prfl_jax.data import Dataset
from prfl_jax.data.text.tables import table_accuracy


def slow(data, context):
    counts = collections.defaultdict(collections.Counter)
    for x, y in zip(data.x_train.tolist(), data.y_train.tolist(), strict=True):
        for step, target in enumerate(y):
            for order in range(min(context, step + 1) + 1):
                if target >= 0:
                    counts[tuple(x[step + 1 - order : step + 1])][target] += 1
    right = total = 0
    for x, y in zip(data.x_test.tolist(), data.y_test.tolist(), strict=True):
        for step, target in enumerate(y):
            if target < 0:
                continue
            order = min(context, step + 1)
            while tuple(x[step + 1 - order : step + 1]) not in counts:
                order -= 1
            seen = counts[tuple(x[step + 1 - order : step + 1])]
            right += target == min(seen, key=lambda token: (-seen[token], token))
            total += 1
    return right / total


@pytest.mark.parametrize("context", [0, 1, 2, 3])
def test_a_table_equals_a_loop(context):
    rng = np.random.default_rng(context)
    x, xt = rng.integers(0, 5, (40, 7)).astype(np.int32), rng.integers(0, 6, (20, 7)).astype(np.int32)
    y, yt = np.roll(x, -1, axis=1), np.roll(xt, -1, axis=1)
    x[3:9, 5:], y[3:9, 4:], yt[:, 6] = -1, -1, -1
    data = Dataset("own", x, y, xt, yt, num_classes=6, tokens=6)
    assert table_accuracy(data, context) == pytest.approx(slow(data, context), abs=1e-12)

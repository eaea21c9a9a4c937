"""Cuts streams of tokens into windows with the next token as target, and into training and test parts by position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Windows(NamedTuple):
    """Samples that were cut from streams, in the order of the streams.

    Attributes:
      x: tokens `[N, T]` int32.
      y: the token that follows each of them, `[N, T]` int32.
      stream: `[N]` int32, from which stream each sample is.
    """

    x: np.ndarray
    y: np.ndarray
    stream: np.ndarray


def divided(streams: Sequence[np.ndarray], test_share: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The training and the test part of each stream: the last `test_share` of its tokens is for testing."""
    cuts = [len(stream) - round(test_share * len(stream)) for stream in streams]
    train = [stream[:cut] for stream, cut in zip(streams, cuts, strict=True)]
    return train, [stream[cut:] for stream, cut in zip(streams, cuts, strict=True)]


def windows(streams: Sequence[np.ndarray], context: int) -> Windows:
    """Windows of `context` tokens that follow one another within a stream; the rest at its end is left out.

    A stream of n tokens gives floor((n - 1) / context) windows, since the last token is a target alone.
    """
    x, y, sizes = [np.empty((0, context), np.int32)], [np.empty((0, context), np.int32)], []
    for stream in streams:
        count = max(len(stream) - 1, 0) // context
        sizes.append(count)
        if count:
            x.append(stream[: count * context].reshape(count, context))
            y.append(stream[1 : count * context + 1].reshape(count, context))
    return Windows(np.concatenate(x), np.concatenate(y), np.repeat(np.arange(len(sizes), dtype=np.int32), sizes))


def longest(streams: Sequence[np.ndarray]) -> int:
    """The largest context that gives at least one window."""
    return max(map(len, streams), default=1) - 1

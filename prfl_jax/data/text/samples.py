"""Samples made of texts: windows for a language model, and whole texts with a label, padded at their end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from prfl_jax.data.check import Arrays, checked_arrays
from prfl_jax.data.text.vocabulary import Vocabulary
from prfl_jax.data.text.windows import longest, windows
from prfl_jax.system.errors import UserError
from prfl_jax.tasks import PADDING


def language_data(
    where: str, train: Sequence[np.ndarray], test: Sequence[np.ndarray], context: int, tokens: int, by_stream: bool
) -> Arrays:
    """Windows of streams of tokens with the next token as the target of each.

    Args:
      where: as an error's text begins, `data.name=...`.
      train, test: streams int32 `[n]`.
      context: tokens of a sample (`data.context`).
      tokens: how many different ones there are.
      by_stream: whether the number of its stream is the writer of a sample.

    Raises:
      UserError: no stream of a part is long enough for one sample.
    """
    parts = {"train": windows(train, context), "test": windows(test, context)}
    for streams, made, words in ((train, parts["train"], "training"), (test, parts["test"], "test")):
        if not len(made.x):
            raise UserError(
                f"{where}: no {words} text is longer than data.context={context}; allowed are 2..{longest(streams)}"
                if longest(streams) >= 2
                else f"{where}: there is no {words} text"
            )
    found = {f"{name}_{part}": getattr(made, name) for part, made in parts.items() for name in ("x", "y")}
    writers = {f"writer_{part}": made.stream for part, made in parts.items()} if by_stream else {}
    return checked_arrays(where, {**found, **writers, "tokens": tokens}, tokens)


def encoded(texts: Mapping[str, Sequence[str]], vocabulary: Vocabulary, context: int) -> dict[str, np.ndarray]:
    """The first `context` tokens of each text of each part, `x_train` and `x_test`, int32 `[N, T]`.

    T is the number of tokens of the longest text, at most `context`; `PADDING` follows those of shorter texts. A text
    without a token becomes `Vocabulary.other`, since a sample has at least one step.
    """
    other = np.array([vocabulary.other], np.int32)
    tokens = {
        part: [one if len(one) else other for one in (vocabulary.encode(text)[:context] for text in own)]
        for part, own in texts.items()
    }
    lengths = {part: np.array([len(one) for one in own], np.int64) for part, own in tokens.items()}
    steps = np.arange(max(int(own.max(initial=0)) for own in lengths.values()))
    found = {}
    for part, own in tokens.items():
        x = np.full((len(own), len(steps)), PADDING, np.int32)
        if own:
            x[steps < lengths[part][:, None]] = np.concatenate(own)
        found[f"x_{part}"] = x
    return found

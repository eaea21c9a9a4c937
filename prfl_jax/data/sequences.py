"""Checks samples with steps: series and other arrays of numbers, sequences of tokens, and their targets and lengths."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from prfl_jax.system.errors import UserError
from prfl_jax.tasks import FEATURES, PADDING, SEQUENCES
from prfl_jax.tasks.sample import pad, sample_lengths

Where = pathlib.Path | str


def checked_series(where: Where, name: str, x: np.ndarray, lengths: Any = None) -> np.ndarray:
    """Numbers as float32 `[N, T, ...]`, NaN from the end of each sample on.

    Args:
      lengths: `[N]` steps of each sample; None: it ends where only NaN follows.

    Raises:
      UserError: another shape, a value that is not finite before a sample's end, or a sample without a step.
    """
    if x.ndim < 2 or 0 in x.shape:
        raise UserError(f"{where}: {name} is {x.dtype} {list(x.shape)}, expected {FEATURES.shapes}, not empty")
    with np.errstate(over="ignore"):  # reported below
        numbers = x.astype(np.float32)
    if lengths is not None:
        numbers = pad(numbers, _lengths(where, name, numbers, lengths))
    last = sample_lengths(numbers)
    _no_empty(where, name, last)
    flat = numbers.reshape(len(numbers), numbers.shape[1], -1)
    inside = np.arange(flat.shape[1])[None, :, None] < last[:, None, None]
    wrong = np.argwhere(inside & ~np.isfinite(flat))
    if len(wrong):
        sample, step, _ = wrong[0].tolist()
        raise UserError(
            f"{where}: {name} holds {x.reshape(flat.shape)[tuple(wrong[0])]} in sample {sample} at step {step}; "
            "allowed: finite numbers, and NaN for all that follows a sample's last step"
        )
    return numbers


def checked_tokens(where: Where, name: str, x: np.ndarray, lengths: Any = None) -> np.ndarray:
    """Tokens as int32 `[N, T]`, `PADDING` from the end of each sequence on.

    Raises:
      UserError: another shape, a negative token before a sequence's end, or a sequence without a token.
    """
    if x.ndim != 2 or 0 in x.shape:
        raise UserError(
            f"{where}: {name} is {x.dtype} {list(x.shape)}; whole numbers are tokens, {SEQUENCES.shapes}; images are "
            "uint8, other numbers floats"
        )
    if int(x.max()) >= 2**31 - 1:
        raise UserError(f"{where}: {name} holds {int(x.max())}; allowed are tokens below {2**31 - 1}")
    if lengths is not None:
        x = pad(x.astype(np.int64), _lengths(where, name, x, lengths))
    last = sample_lengths(x)
    _no_empty(where, name, last)
    inside = np.arange(x.shape[1])[None] < last[:, None]
    wrong = np.argwhere(inside & (x < 0))
    if len(wrong):
        sample, step = wrong[0].tolist()
        raise UserError(
            f"{where}: {name} holds {x[sample, step]} in sequence {sample} at step {step}; allowed: tokens from 0, and "
            f"{PADDING} for all that follows a sequence's last token"
        )
    return x.astype(np.int32)


def sequence_targets(where: Where, name: str, y: np.ndarray, x: np.ndarray, largest: int, padded: bool) -> np.ndarray:
    """Targets of sequences as int32 `[N, T]`, `PADDING` where a step has none.

    Args:
      x: the sequences, `PADDING` behind the last token of each.
      largest: target.
      padded: whether targets behind a sequence's last token are left out, else refused.

    Raises:
      UserError: a target is no whole number in `PADDING .. largest` or belongs to no token, or there is none at all.
    """
    if not np.issubdtype(y.dtype, np.integer):
        raise UserError(f"{where}: {name} is {y.dtype} {list(y.shape)}, expected whole numbers, one for each token")
    behind = (x == PADDING) & (y != PADDING)
    if padded:
        y = np.where(behind, PADDING, y)
    elif behind.any():
        sample, step = np.argwhere(behind)[0].tolist()
        raise UserError(
            f"{where}: {name} holds {y[sample, step]} in sequence {sample} at step {step}, behind its last token; "
            f"allowed is {PADDING} there"
        )
    low, high = int(y.min()), int(y.max())
    if low < PADDING or high > largest:
        raise UserError(
            f"{where}: {name} holds {low if low < PADDING else high}, allowed are 0..{largest}, and {PADDING} for none"
        )
    if high == PADDING:
        raise UserError(f"{where}: {name} holds no target, all are {PADDING}")
    return y.astype(np.int32)


def stacked(series: Sequence[np.ndarray], steps: int) -> np.ndarray:
    """Series `[T, C]` of at most `steps` steps as one array `[N, steps, C]` float32, NaN behind shorter ones."""
    x = np.full((len(series), steps, series[0].shape[1]), np.nan, np.float32)
    with np.errstate(over="ignore"):  # infinity, which `checked_series` reports
        for row, one in zip(x, series, strict=True):
            row[: len(one)] = one
    return x


def _lengths(where: Where, name: str, x: np.ndarray, lengths: Any) -> np.ndarray:
    steps, own = np.asarray(lengths), name.replace("x_", "length_")
    if steps.shape != (len(x),) or not np.issubdtype(steps.dtype, np.integer):
        raise UserError(f"{where}: {own} is {steps.dtype} {list(steps.shape)}, expected whole numbers [{len(x)}]")
    low, high = int(steps.min()), int(steps.max())
    if low < 1 or high > x.shape[1]:
        raise UserError(f"{where}: {own} holds {low if low < 1 else high}, allowed are 1..{x.shape[1]}")
    return steps


def _no_empty(where: Where, name: str, lengths: np.ndarray) -> None:
    if not lengths.all():
        raise UserError(f"{where}: sample {int(np.argmin(lengths))} of {name} has no step; leave it out")

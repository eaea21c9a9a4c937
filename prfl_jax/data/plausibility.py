"""Warnings about data sets that are usable but look like a mistake, one line of text each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from prfl_jax.tasks import FEATURES, IMAGES, SampleKind, kind_of

_CHANNELS = 4  # more are no usual image
_SIDE = 4  # pixels; a shorter one is no usual image
_LARGE = 1e3  # numbers beyond it train badly as they are
_CONTRAST = 32  # of 0..255; all pixels of a part within so few values are no usual images


def looks_strange(
    x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, num_classes: int
) -> list[str]:
    """What a user should look at again, in words that say what it is taken for.

    Args:
        x_train, x_test: samples (`Dataset`).
        y_train, y_test: `[N]` or `[N, T]` int32, in `0 .. num_classes - 1`.
    """
    kind = kind_of(x_train.dtype)
    assert kind is not None
    found = list(_shapes(x_train.shape)) if kind is IMAGES else []
    for part, x, y in (("training", x_train, y_train), ("test", x_test, y_test)):
        if kind is IMAGES:
            found += _pixels(part, x)
        elif kind is FEATURES:
            found += _numbers(part, x)
        if y.min() == y.max():
            found.append(f"all {len(y):,} {part} {kind.name} have one label, {y.flat[0]}")
    if y_train.ndim == 1:
        found += _classes(y_train, y_test, num_classes, kind)
    found += _shared(x_train, x_test, kind)
    return found


def _shapes(shape: tuple[int, ...]) -> Iterator[str]:
    _, height, width, channels = shape
    taken = f"images of {height} x {width} pixels and {channels} channels"
    if height <= _CHANNELS and (channels > _CHANNELS or width == channels != height):
        yield f"it is taken for {taken}; if the channels come first: x.transpose(0, 2, 3, 1)"
    elif channels > _CHANNELS:
        yield f"it is taken for {taken}; channels come last"
    elif min(height, width) < _SIDE:
        yield f"it is taken for {taken}; expected is [N, H, W] or [N, H, W, C]"


def _pixels(part: str, x: np.ndarray) -> Iterator[str]:
    flat = x.reshape(len(x), -1)
    low, high = flat.min(axis=1), flat.max(axis=1)
    least, most = int(low.min()), int(high.max())
    if most - least < _CONTRAST:
        what = f"are {most}" if least == most else f"lie in {least}..{most}"
        yield f"all pixels of the {part} images {what}, and 255 is full; scale them to 0..255"
        return
    plain = int(np.count_nonzero(low == high)) if flat.shape[1] > 1 else 0
    if plain:
        black = int(np.count_nonzero(high == 0))
        yield f"{plain:,} of {len(x):,} {part} images are one value all over" + (f" ({black:,} black)" if black else "")


def _numbers(part: str, x: np.ndarray) -> Iterator[str]:
    """What looks strange in arrays of floats."""
    least, most = float(np.nanmin(x)), float(np.nanmax(x))
    if x.ndim == 4 and least >= 0 and most <= 255:
        yield (
            f"the {part} samples are {x.shape[1:]} floats in {least:g}..{most:g} and are used as they are; if they are "
            "images, take uint8: a quarter of the memory, and data.normalize and data.augment apply"
        )
    elif least == most:
        yield f"all numbers of the {part} samples are {most:g}"
    elif max(abs(least), abs(most)) > _LARGE:
        yield f"the {part} samples reach from {least:g} to {most:g}; data.normalize=standard scales each channel"


def _classes(y_train: np.ndarray, y_test: np.ndarray, num_classes: int, kind: SampleKind) -> Iterator[str]:
    train = np.bincount(y_train, minlength=num_classes)
    test = np.bincount(y_test, minlength=num_classes)
    missing = np.flatnonzero(train == 0)
    if not len(missing):
        return
    first = int(np.flatnonzero(train)[0])
    text = f"no training {kind.one} has label {_ranges(missing.tolist())}, of 0..{num_classes - 1}"
    untaught = int(test[missing].sum())
    if untaught:
        text += f", but {untaught:,} of {len(y_test):,} test {kind.name} do"
    elif first and first == min(np.flatnonzero(test)):
        text += f"; if labels count from {first}, subtract that"
    yield text


def _ranges(numbers: Sequence[int], most: int = 4) -> str:
    """`0, 3 to 5`: ascending numbers, at most so many runs of them."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [str(a) if a == b else f"{a} to {b}" for a, b in runs[:most]]
    rest = sum(b - a + 1 for a, b in runs[most:])
    return ", ".join(texts) + (f" and {rest} more" if rest else "")


def _shared(x_train: np.ndarray, x_test: np.ndarray, kind: SampleKind) -> Iterator[str]:
    def hashes(x: np.ndarray) -> list[int]:
        return [hash(sample.tobytes()) for sample in x]

    known = set(hashes(x_train))
    count = sum(one in known for one in hashes(x_test))
    if count:
        yield f"{count:,} of {len(x_test):,} test {kind.name} are training {kind.name} too"

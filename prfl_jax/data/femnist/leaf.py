"""The images of LEAF's FEMNIST: lists of 28 x 28 floats in [0, 1] row by row, background 1, and labels 0 .. 61."""

from __future__ import annotations

import hashlib
import math
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from prfl_jax.data.leaf import Found, Piece, pieces
from prfl_jax.system.errors import UserError

SIDE = 28
CLASSES = 62
TEST_EVERY = 10  # of a writer's images, where the folder has no test files of its own


class Example(NamedTuple):
    """One image: `image` `[28, 28, 1]` uint8, `label` 0..61, `writer` LEAF's user, `number` among all the user's."""

    image: np.ndarray
    label: int
    writer: str
    number: int


def images_found() -> Found:
    """Where nothing was read yet."""
    return Found("images", "writers")


def read(files: list[pathlib.Path], found: Found | None = None) -> Iterator[Example]:
    """The images of files, one at a time, pixels rounded to 0 .. 255.

    Args:
        found: brought up to date with what is read.

    Raises:
        UserError: a file is not JSON of LEAF's layout, a pixel or label is out of range, or images come twice.
    """
    found = images_found() if found is None else found
    for piece in pieces(files, found.samples):
        yield from _images(piece, found)


def _images(piece: Piece, found: Found) -> Iterator[Example]:
    path, user, images, labels = piece
    before, digest = found.counts.get(user, 0), hashlib.sha1()
    for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        try:
            values = np.asarray(pixels, np.float64)
        except (ValueError, TypeError, OverflowError):
            values = np.empty(0)
        if values.shape != (SIDE * SIDE,) or not (values.min() >= 0 and values.max() <= 1):
            raise UserError(f"{path}: user {user}, image {number}: expected {SIDE * SIDE} numbers in [0, 1]")
        if not _is_label(label):
            raise UserError(f"{path}: user {user}, image {number}: label {label!r}, allowed are 0..{CLASSES - 1}")
        image = np.rint(values * 255).astype(np.uint8).reshape(SIDE, SIDE, 1)
        digest.update(image.tobytes() + bytes([int(label)]))
        yield Example(image, int(label), user, before + number)
    found.add(user, path, len(images), digest.digest())


def _is_label(label: Any) -> bool:
    if not isinstance(label, int | float) or isinstance(label, bool) or not math.isfinite(label):
        return False
    return label == int(label) and 0 <= label < CLASSES

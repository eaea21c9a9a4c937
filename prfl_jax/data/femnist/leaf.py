"""LEAF's JSON layout: files of `users`, `num_samples` and `user_data`.

Each file is one object; `user_data[user]` holds `x`, a list of images of 28 x 28
floats in [0, 1] row by row, background 1, and `y`, their labels 0 .. 61.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from prfl_jax.errors import UserError

SIDE = 28
CLASSES = 62
TEST_EVERY = 10  # of a writer's images, where the folder has no test files of its own


class Example(NamedTuple):
    """One image: `image` `[28, 28, 1]` uint8, `label` 0..61, `writer` LEAF's user, `number` among the user's."""

    image: np.ndarray
    label: int
    writer: str
    number: int


def parts(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """The JSON files of each part, sorted.

    Returns:
        `{"train": ..., "test": ...}` where the folder has both; `{"all": ...}` where the
        files lie in it, or in its `all_data`.

    Raises:
        UserError: there is no such folder or no JSON file in it.
    """
    found = {part: sorted((folder / part).glob("*.json")) for part in ("train", "test")}
    if all(found.values()):
        return found
    if any(found.values()):
        missing = next(part for part, files in found.items() if not files)
        raise UserError(f"{folder}: no *.json in its folder {missing}; LEAF writes both train and test")
    for place in (folder, folder / "all_data"):
        if files := sorted(place.glob("*.json")):
            return {"all": files}
    raise UserError(f"{folder}: no LEAF files; expected train/*.json and test/*.json, or *.json")


def read(files: list[pathlib.Path]) -> Iterator[Example]:
    """The images of files, one at a time, pixels rounded to 0 .. 255.

    Raises:
        UserError: a file is not JSON of LEAF's layout, or a pixel or label is out of range.
    """
    for path in files:
        yield from _read_file(path)


def _read_file(path: pathlib.Path) -> Iterator[Example]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise UserError(f"{path}: not a JSON file ({str(e).splitlines()[0]})") from e
    try:
        users, sizes, data = content["users"], content["num_samples"], content["user_data"]
        if len(users) != len(sizes):
            raise UserError(f"{path}: {len(users)} users but {len(sizes)} entries in num_samples")
        for user, size in zip(users, sizes, strict=True):
            yield from _read_user(path, str(user), int(size), data[user])
    except (KeyError, TypeError, ValueError) as e:
        raise UserError(f"{path}: not LEAF's layout, expected users, num_samples, user_data ({e!r})") from e


def _read_user(path: pathlib.Path, user: str, size: int, data: Any) -> Iterator[Example]:
    labels = data["y"]
    if not len(data["x"]) == len(labels) == size:
        raise UserError(f"{path}: user {user} has {len(data['x'])} images, {len(labels)} labels, num_samples {size}")
    for number, (pixels, label) in enumerate(zip(data["x"], labels, strict=True)):
        try:
            values = np.asarray(pixels, np.float64)
        except ValueError:
            values = np.empty(0)
        if values.shape != (SIDE * SIDE,) or not (values.min() >= 0 and values.max() <= 1):
            raise UserError(f"{path}: user {user}, image {number}: expected {SIDE * SIDE} numbers in [0, 1]")
        if label != int(label) or not 0 <= label < CLASSES:
            raise UserError(f"{path}: user {user}, image {number}: label {label}, allowed are 0..{CLASSES - 1}")
        image = np.rint(values * 255).astype(np.uint8).reshape(SIDE, SIDE, 1)
        yield Example(image, int(label), user, number)

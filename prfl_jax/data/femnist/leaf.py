"""Reads a data set in LEAF's JSON layout: files with `users`, `num_samples` and `user_data`.

Each file is one object; `user_data[user]` holds `x`, a list of images of 28 x 28
floats in [0, 1] row by row, background 1, and `y`, their labels 0 .. 61. A user may be
in several files: its images are then counted on from one to the next.
"""

from __future__ import annotations

import hashlib
import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

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


class Found:
    """What was read so far.

    Attributes:
        images: of each user.
        files: of each user, those with images of it, in order.
        empty: users whose files hold no image of them.
    """

    def __init__(self) -> None:
        self.images: dict[str, int] = {}
        self.files: dict[str, list[pathlib.Path]] = {}
        self._pieces: dict[tuple[str, bytes], pathlib.Path] = {}

    @property
    def empty(self) -> list[str]:
        return [user for user, count in self.images.items() if not count]

    def add(self, user: str, path: pathlib.Path, count: int, digest: bytes) -> None:
        """Counts a user's images of one file.

        Raises:
            UserError: another file held the same images of this user.
        """
        self.images[user] = self.images.get(user, 0) + count
        if not count:
            return
        other = self._pieces.setdefault((user, digest), path)
        if other is not path:
            raise UserError(f"{path}: user {user} has the same images in {other.name}; take one of the files away")
        self.files.setdefault(user, []).append(path)

    def lines(self) -> list[str]:
        """What a user of the data should know, a line each."""
        out = []
        joined = {user: files for user, files in self.files.items() if len(files) > 1}
        if joined:
            first, files = next(iter(joined.items()))
            names = " and ".join(path.name for path in files[:2])
            out.append(f"{len(joined):,} writers whose images lie in several files are joined, as {first} ({names})")
        if self.empty:
            out.append(f"{len(self.empty):,} writers have no image, as {self.empty[0]}, and are left out")
        return out


def parts(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """The JSON files of each part, sorted.

    Returns:
        `{"train": ..., "test": ...}` where the folder has both; `{"all": ...}` where the
        files are in it, or in its `all_data`.

    Raises:
        UserError: there is no such folder or no JSON file in it.
    """
    found = {part: _json_files(folder / part) for part in ("train", "test")}
    if all(found.values()):
        return found
    if any(found.values()):
        missing = next(part for part, files in found.items() if not files)
        raise UserError(f"{folder}: no *.json in its folder {missing}; LEAF writes both train and test")
    for place in (folder, folder / "all_data"):
        if files := _json_files(place):
            return {"all": files}
    raise UserError(f"{folder}: no LEAF files; expected train/*.json and test/*.json, or *.json")


def _json_files(folder: pathlib.Path) -> list[pathlib.Path]:
    # Hidden ones are no data, but what some systems keep beside a file.
    return sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))


def read(files: list[pathlib.Path], found: Found | None = None) -> Iterator[Example]:
    """The images of files, one at a time, pixels rounded to 0 .. 255.

    Args:
        found: brought up to date with what is read.

    Raises:
        UserError: a file is not JSON of LEAF's layout, a pixel or label is out of range, or images come twice.
    """
    found = Found() if found is None else found
    for path in files:
        yield from _read_file(path, found)


def _read_file(path: pathlib.Path, found: Found) -> Iterator[Example]:
    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=_unique)  # bytes: whatever Unicode form they have
    except (OSError, ValueError, RecursionError) as e:
        raise UserError(f"{path}: not a JSON file ({str(e).splitlines()[0]}); make or fetch it again") from e
    try:
        users, sizes, data = content["users"], content["num_samples"], content["user_data"]
        if not (isinstance(users, list) and isinstance(sizes, list) and isinstance(data, dict)):
            raise TypeError("users and num_samples have to be lists, user_data an object")
        users = [str(user) for user in users]
        if len(users) != len(sizes):
            raise UserError(f"{path}: {len(users)} users but {len(sizes)} entries in num_samples")
        for said, there in ((users, data), (data, users)):
            missing = next((user for user in said if user not in there), None)
            if missing is not None:
                has, lacks = ("users", "user_data") if there is data else ("user_data", "users")
                raise UserError(f"{path}: user {missing} is in {has} but not in {lacks}")
        if len(set(users)) < len(users):
            raise UserError(f"{path}: user {max(users, key=users.count)} is in users twice")
        for user, size in zip(users, sizes, strict=True):
            yield from _read_user(path, user, size, data[user], found)
    except (KeyError, TypeError, ValueError) as e:
        raise UserError(f"{path}: not LEAF's layout, expected users, num_samples, user_data ({e!r})") from e


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; one of two values under one key would be lost."""
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} twice in one object")
    return made


def _read_user(path: pathlib.Path, user: str, size: Any, data: Any, found: Found) -> Iterator[Example]:
    images, labels = data["x"], data["y"]
    if not (isinstance(images, list) and isinstance(labels, list)):
        raise TypeError(f"x and y of user {user} have to be lists")
    if not len(images) == len(labels) == size:
        raise UserError(f"{path}: user {user} has {len(images)} images, {len(labels)} labels, num_samples {size}")
    before, digest = found.images.get(user, 0), hashlib.sha1()
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

"""Reads JSON files in LEAF's layout: `users`, `num_samples` and `user_data`, whatever their samples are.

Each file is one object; `user_data[user]` holds two lists, `x` (samples) and `y` (labels). A user may be in several
files: its samples are then counted on from one to the next. (LEAF: Caldas et al. 2018.)
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from prfl_jax.system.errors import UserError


class Piece(NamedTuple):
    """What one file holds of one user: `x` and `y`, lists of one length, as they are in the JSON."""

    path: pathlib.Path
    user: str
    x: list[Any]
    y: list[Any]


class Found:
    """What was read so far.

    Args:
        samples: what the samples are, in messages.
        users: what the users are, in messages.

    Attributes:
        counts: number of samples of each user.
        files: of each user, those with samples of it, in order.
    """

    def __init__(self, samples: str = "samples", users: str = "users") -> None:
        self.samples, self.users = samples, users
        self.counts: dict[str, int] = {}
        self.files: dict[str, list[pathlib.Path]] = {}
        self._pieces: dict[tuple[str, bytes], pathlib.Path] = {}

    @property
    def empty(self) -> list[str]:
        """Users whose files hold no sample of them."""
        return [user for user, count in self.counts.items() if not count]

    def add(self, user: str, path: pathlib.Path, count: int, digest: bytes) -> None:
        """Counts a user's samples of one file.

        Raises:
            UserError: another file held the same samples of this user.
        """
        self.counts[user] = self.counts.get(user, 0) + count
        if not count:
            return
        other = self._pieces.setdefault((user, digest), path)
        if other is not path:
            raise UserError(
                f"{path}: user {user} has the same {self.samples} in {other.name}; take one of the files away"
            )
        self.files.setdefault(user, []).append(path)

    def lines(self) -> list[str]:
        """What a user of the data should know, a line each."""
        out = []
        joined = {user: files for user, files in self.files.items() if len(files) > 1}
        if joined:
            first, files = next(iter(joined.items()))
            names = " and ".join(path.name for path in files[:2])
            which = f"{len(joined):,} {self.users} whose {self.samples} lie in several files"
            out.append(f"{which} are joined, as {first} ({names})")
        if self.empty:
            one = self.samples.removesuffix("s")
            out.append(f"{len(self.empty):,} {self.users} have no {one}, as {self.empty[0]}, and are left out")
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


def pieces(files: list[pathlib.Path], samples: str = "samples") -> Iterator[Piece]:
    """What the files hold of each user, in the files' order.

    Args:
        samples: what the samples are, in messages.

    Raises:
        UserError: a file is not JSON of LEAF's layout.
    """
    for path in files:
        for user, size, data in _users(path):
            try:
                x, y = data["x"], data["y"]
                if not (isinstance(x, list) and isinstance(y, list)):
                    raise TypeError(f"x and y of user {user} have to be lists")
            except (KeyError, TypeError) as e:
                raise _other_layout(path, e) from e
            if not len(x) == len(y) == size:
                raise UserError(f"{path}: user {user} has {len(x)} {samples}, {len(y)} labels, num_samples {size}")
            yield Piece(path, user, x, y)


def _users(path: pathlib.Path) -> list[tuple[str, Any, Any]]:
    """Each user of a file with its number of samples and its data."""
    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=_unique)  # bytes: whatever Unicode form they have
    except (OSError, ValueError, RecursionError) as e:
        raise UserError(f"{path}: not a JSON file ({str(e).splitlines()[0]}); make or fetch it again") from e
    try:
        users, sizes, data = content["users"], content["num_samples"], content["user_data"]
        if not (isinstance(users, list) and isinstance(sizes, list) and isinstance(data, dict)):
            raise TypeError("users and num_samples have to be lists, user_data an object")
    except (KeyError, TypeError) as e:
        raise _other_layout(path, e) from e
    users = [str(user) for user in users]
    if len(users) != len(sizes):
        raise UserError(f"{path}: {len(users)} users but {len(sizes)} entries in num_samples")
    for said, there in ((users, data), (data, users)):
        known = set(there)
        missing = next((user for user in said if user not in known), None)
        if missing is not None:
            has, lacks = ("users", "user_data") if there is data else ("user_data", "users")
            raise UserError(f"{path}: user {missing} is in {has} but not in {lacks}")
    if len(set(users)) < len(users):
        raise UserError(f"{path}: user {max(users, key=users.count)} is in users twice")
    return [(user, size, data[user]) for user, size in zip(users, sizes, strict=True)]


def _other_layout(path: pathlib.Path, error: Exception) -> UserError:
    return UserError(f"{path}: not LEAF's layout, expected users, num_samples, user_data ({error!r})")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; one of two values under one key would be lost."""
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} twice in one object")
    return made

"""LEAF's texts as its preprocessing writes them: `shakespeare` (next character) and `sent140` (sentiment of tweets)."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from prfl_jax.data.check import PARTS, checked_arrays
from prfl_jax.data.dataset import DATA_DIR_VARIABLE, Dataset, made
from prfl_jax.data.leaf import Found, Piece, parts, pieces
from prfl_jax.data.text.samples import encoded
from prfl_jax.data.text.vocabulary import UNITS, Characters
from prfl_jax.system.errors import UserError
from prfl_jax.system.notices import note_once

_TEXT = 4  # the place of the text in a tweet's entries
_LABELS = {0: 0, 1: 1, "0": 0, "1": 1}


class Texts(NamedTuple):
    """What one part of a LEAF folder holds: texts and labels in the order of the files, and the user of each."""

    x: list[str]
    y: list[Any]
    users: list[str]


Check = Callable[[Piece], tuple[list[str], list[Any]]]  # a piece's texts and labels; raises UserError


def leaf_shakespeare(name: str, folder: pathlib.Path, cfg: Any) -> Dataset:
    """LEAF's windows of 80 characters, the next one as the last target; the characters before it are targets too.

    With `data.targets=last` that character alone is the label, as LEAF scores. Writers are LEAF's users (roles) in the
    order of their names.

    Raises:
      UserError: the folder is missing, not LEAF's, or windows are of several lengths.
    """
    texts = _read(name, folder, _window)
    where = f"data.name={name}"
    lengths = sorted({len(text) for part in texts.values() for text in part.x})
    if len(lengths) > 1 or lengths[0] < 2:
        raise UserError(f"{where}: windows of {lengths[0]} to {lengths[-1]} characters; allowed: one length from 2 on")
    found: dict[str, Any] = {}
    for part, read in texts.items():
        x = Characters().encode("".join(read.x)).reshape(-1, lengths[0])
        y = Characters().encode("".join(read.y))
        found |= {f"x_{part}": x, f"y_{part}": np.concatenate([x[:, 1:], y[:, None]], axis=1)}
    found |= _writers(texts) | {"tokens": np.int64(Characters.tokens)}
    return made(name, checked_arrays(where, found, Characters.tokens), f"Shakespeare from LEAF's JSON ({name})")


def leaf_sent140(name: str, folder: pathlib.Path, cfg: Any) -> Dataset:
    """Tweets as sequences of tokens with their sentiment, 0 or 1, as label; writers are LEAF's users (accounts).

    The vocabulary (`data.unit`, `data.vocabulary`) is made of the training part; a tweet is cut after `data.context`
    tokens.

    Raises:
      UserError: the folder is missing, or not LEAF's.
    """
    texts = _read(name, folder, _tweets)
    vocabulary = UNITS.find(cfg.unit).vocabulary(texts["train"].x, cfg.vocabulary)
    found: dict[str, Any] = {**encoded({part: read.x for part, read in texts.items()}, vocabulary, cfg.context)}
    found |= {f"y_{part}": np.asarray(read.y, np.int32) for part, read in texts.items()}
    found |= _writers(texts) | {"tokens": np.int64(vocabulary.tokens)}
    return made(name, checked_arrays(f"data.name={name}", found, 2), f"Sentiment140 from LEAF's JSON ({name})")


def _read(name: str, folder: pathlib.Path, check: Check) -> dict[str, Texts]:
    """Both parts of the folder of that name.

    Raises:
      UserError: there is none, it is not divided, not LEAF's, or a part is empty.
    """
    place = folder / name
    run = "put the folders train and test that LEAF's preprocessing writes into it"
    if not place.is_dir():
        raise UserError(f"data.name={name}: no folder {place} (set data.dir or {DATA_DIR_VARIABLE}); {run}")
    files = parts(place)
    if set(files) != set(PARTS):
        raise UserError(f"{place}: its files are not divided; {run}")
    texts = {part: Texts([], [], []) for part in PARTS}
    for part, read in texts.items():
        found = Found()
        for piece in pieces(files[part]):
            x, y = check(piece)
            found.add(piece.user, piece.path, len(x), hashlib.sha1(json.dumps([x, y]).encode()).digest())
            read.x.extend(x)
            read.y.extend(y)
            read.users.extend([piece.user] * len(x))
        if not read.x:
            raise UserError(f"{place}: its {part} files hold no sample")
        for line in found.lines():
            note_once(f"{place}, {part}: {line}")
    return texts


def _writers(texts: dict[str, Texts]) -> dict[str, np.ndarray]:
    """The number of each sample's user, in the order of the users' names."""
    numbers = {user: number for number, user in enumerate(sorted({u for read in texts.values() for u in read.users}))}
    return {f"writer_{part}": np.array([numbers[user] for user in read.users]) for part, read in texts.items()}


def _window(piece: Piece) -> tuple[list[str], list[Any]]:
    for number, (text, label) in enumerate(zip(piece.x, piece.y, strict=True)):
        if not isinstance(text, str) or not isinstance(label, str) or len(label) != 1:
            raise _wrong(piece, number, "expected a text in x and one character in y")
        if len(text) != len(piece.x[0]):
            raise _wrong(piece, number, f"{len(text)} characters, its first one has {len(piece.x[0])}")
    return piece.x, piece.y


def _tweets(piece: Piece) -> tuple[list[str], list[Any]]:
    x, y = [], []
    for number, (tweet, label) in enumerate(zip(piece.x, piece.y, strict=True)):
        if not isinstance(tweet, list) or len(tweet) <= _TEXT or not isinstance(tweet[_TEXT], str):
            raise _wrong(piece, number, "expected a list in x whose fifth entry is the text")
        if isinstance(label, bool | list | dict) or label not in _LABELS:
            raise _wrong(piece, number, f"label {label!r}, allowed are 0 and 1")
        x.append(tweet[_TEXT])
        y.append(_LABELS[label])
    return x, y


def _wrong(piece: Piece, number: int, said: str) -> UserError:
    return UserError(f"{piece.path}: user {piece.user}, sample {number}: {said}")

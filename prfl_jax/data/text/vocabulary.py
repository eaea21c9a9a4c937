"""Vocabularies: characters or words of a text as tokens, whole numbers from 0 (`data.unit`)."""

from __future__ import annotations

import abc
import collections
import dataclasses
import re
import string
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from prfl_jax.registry import Registry

# The 80 characters of LEAF's Shakespeare, in the order of their codes; token i is the i-th one.
CHARACTERS = "".join(sorted(f"{string.ascii_letters}{string.digits}\n !\"&'(),-.:;>?[]}}"))
OTHER_CHARACTER = len(CHARACTERS)  # the token of all other characters
NUM_CHARACTERS = len(CHARACTERS) + 1
UNKNOWN, END = "<unk>", "<eos>"  # in place of a word: one that is not in the vocabulary, the end of a sentence or line
_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_SENTENCE = re.compile(r"[.!?]+")
_BEYOND = 128  # every code from here on is another character

_TABLE = np.full(_BEYOND + 1, OTHER_CHARACTER, np.int32)
_TABLE[[ord(character) for character in CHARACTERS]] = np.arange(len(CHARACTERS))


def words_of(text: str) -> list[str]:
    """The words of a text in lower case: runs of letters and digits, with apostrophes and hyphens inside.

    Everything else separates words and is left out.

    Examples:
      >>> words_of("'Tis bitter cold, and I'm well-nigh sick.")
      ['tis', 'bitter', 'cold', 'and', "i'm", 'well-nigh', 'sick']
    """
    return _WORD.findall(text.lower())


def sentences(text: str) -> list[str]:
    """The words of a text with `END` behind each sentence, which ends with one of `.!?` or with the text.

    Examples:
      >>> sentences("Who's there? Nay, answer me")
      ["who's", 'there', '<eos>', 'nay', 'answer', 'me', '<eos>']
    """
    out = []
    for sentence in _SENTENCE.split(text):
        found = words_of(sentence)
        out += [*found, END] if found else []
    return out


class Vocabulary(abc.ABC):
    """What the tokens of a text stand for.

    Attributes:
      tokens: how many there are.
      other: the token of whatever has none of its own.
    """

    tokens: int
    other: int

    @abc.abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """The tokens of a text, int32 `[n]`."""


@dataclasses.dataclass(frozen=True)
class Characters(Vocabulary):
    """The fixed vocabulary of `CHARACTERS`, and one token for all other characters."""

    tokens: int = NUM_CHARACTERS
    other: int = OTHER_CHARACTER

    def encode(self, text: str) -> np.ndarray:
        """See `Vocabulary`.

        Examples:
          >>> Characters().encode("\\nAz\u00e9").tolist()
          [0, 25, 78, 80]
        """
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        return _TABLE[np.minimum(codes, _BEYOND)]


class Words(Vocabulary):
    """The most frequent words of a training part, and token 0 for all other words.

    Token k is the k-th most frequent word; of equally frequent words the first in the alphabet comes first.

    Args:
      texts: of the training part, as words.
      size: how many words have a token of their own. `tokens` is that + 1, also where there are fewer words.
      split: text -> its words.
    """

    other = 0

    def __init__(self, texts: Iterable[Sequence[str]], size: int, split: Callable[[str], list[str]] = words_of) -> None:
        counts = collections.Counter[str]()
        for words in texts:
            counts.update(words)
        counts.pop(UNKNOWN, None)
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:size]
        self.words = (UNKNOWN, *(word for word, _ in ranked))
        self.tokens, self._split = size + 1, split
        self._numbers = {word: number for number, word in enumerate(self.words)}

    def number(self, words: Sequence[str]) -> np.ndarray:
        """The tokens of words, int32 `[n]`."""
        find = self._numbers.get
        return np.fromiter((find(word, 0) for word in words), np.int32, len(words))

    def encode(self, text: str) -> np.ndarray:
        """See `Vocabulary`."""
        return self.number(self._split(text))


@dataclasses.dataclass(frozen=True)
class Unit:
    """One choice of `data.unit`.

    Attributes:
      by_word: whether a token is a word, else a character.
    """

    by_word: bool

    def vocabulary(self, texts: Iterable[str], size: int, running: bool = False) -> Vocabulary:
        """The vocabulary of a training part.

        Args:
          texts: of that part.
          size: how many words have a token of their own (`data.vocabulary`).
          running: whether the end of a sentence is a word, as in a language model.
        """
        split = sentences if running else words_of
        return Words(map(split, texts), size, split) if self.by_word else Characters()


# the choices of `data.unit`
UNITS: Registry[Unit] = Registry("data.unit", {"words": Unit(True), "characters": Unit(False)})

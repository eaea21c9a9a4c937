"""Characters and words as tokens."""

import collections
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prfl_jax.data.text.vocabulary import CHARACTERS, NUM_CHARACTERS, UNITS, Characters, Words, sentences, words_of


def test_the_characters_are_those_of_leaf():
    """80 characters in the order of their codes, as LEAF's language models have them."""
    assert len(CHARACTERS) == 80 and NUM_CHARACTERS == 81 and list(CHARACTERS) == sorted(set(CHARACTERS))
    assert set(string.ascii_letters + string.digits) < set(CHARACTERS)
    assert set(CHARACTERS) - set(string.ascii_letters + string.digits) == set("\n !\"&'(),-.:;>?[]}")


@given(st.text())
def test_characters_equal_a_search_for_each(text):
    found = Characters().encode(text)
    assert found.dtype == np.int32
    assert found.tolist() == [CHARACTERS.find(c) if c in CHARACTERS else 80 for c in text]


def test_lone_surrogates_are_other_characters():
    assert Characters().encode("a\ud800\U0001f600\x00\x7f\x80").tolist() == [CHARACTERS.find("a"), 80, 80, 80, 80, 80]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("... --- !", []),
        ("Don't go to-night, 'tis late'", ["don't", "go", "to-night", "tis", "late"]),
        ("It\u2019s 3.5 %", ["it\u2019s", "3", "5"]),
        ("snake_case @user #tag", ["snake", "case", "user", "tag"]),
        ("Éa ÉA", ["éa", "éa"]),
    ],
)
def test_words(text, words):
    assert words_of(text) == words


def test_sentences_end_with_a_word_of_their_own():
    assert sentences("Who? Me!! No... -- well;\nyes") == [
        *("who", "<eos>", "me", "<eos>", "no", "<eos>", "well", "yes", "<eos>")
    ]
    assert sentences("...") == sentences("") == []


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "d", "<unk>"])), max_size=6), st.integers(1, 5))
def test_the_most_frequent_words_have_tokens(texts, size):
    vocabulary = Words(texts, size)
    counts = collections.Counter(word for words in texts for word in words if word != "<unk>")
    ranked = sorted(sorted(counts), key=counts.get, reverse=True)[:size]  # the sort keeps the alphabet
    assert vocabulary.tokens == size + 1 and vocabulary.words == ("<unk>", *ranked)
    words = ["a", "b", "c", "d", "e", "<unk>"]
    assert vocabulary.number(words).tolist() == [ranked.index(w) + 1 if w in ranked else 0 for w in words]


def test_units():
    words = UNITS.find("words").vocabulary(["b b a", "B c"], 2)
    assert words.encode("A b, c?").tolist() == [2, 1, 0] and words.other == 0
    running = UNITS.find("words").vocabulary(["b a. b"], 3, running=True)  # two ends, two b
    assert running.words == ("<unk>", "<eos>", "b", "a") and running.encode("a.").tolist() == [3, 1]
    characters = UNITS.find("characters").vocabulary(["b"], 2)
    assert (characters.tokens, characters.other) == (81, 80)

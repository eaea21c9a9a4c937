"""LEAF's folders of texts: windows of characters and tweets, users in several files, and damage."""

import numpy as np
import pytest
from texts import config, leaf_json

from prfl_jax.data import load, split
from prfl_jax.data.text.vocabulary import CHARACTERS, Characters
from prfl_jax.system import notices
from prfl_jax.system.errors import UserError

PLAY = "My lord, the queen would speak with you, and presently."


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch):
    monkeypatch.setattr(notices, "_said", set())


def windows(begin, count, length=8):
    """(texts, next characters) of windows that begin one character after another, as LEAF cuts them."""
    places = range(begin, begin + count)
    return [PLAY[i : i + length] for i in places], [PLAY[i + length] for i in places]


def shakespeare_folder(folder):
    place = folder / "leaf_shakespeare"
    leaf_json(place / "train" / "a.json", {"HAMLET": windows(0, 5), "ANNE": windows(9, 3)})
    leaf_json(place / "train" / "b.json", {"HAMLET": windows(20, 2), "NOBODY": ([], [])})
    leaf_json(place / "test" / "a.json", {"HAMLET": windows(30, 2)})
    return place


def test_windows_of_leaf(tmp_path, capfd):
    shakespeare_folder(tmp_path)
    data = load(config("leaf_shakespeare", tmp_path), 0)
    pieces = [windows(0, 5), windows(9, 3), windows(20, 2)]
    texts, after = (sum((piece[k] for piece in pieces), []) for k in (0, 1))
    assert ["".join(CHARACTERS[t] for t in row) for row in data.x_train] == texts
    assert ["".join(CHARACTERS[t] for t in row) for row in data.y_train] == [
        text[1:] + one for text, one in zip(texts, after, strict=True)
    ]
    assert data.writer_train.tolist() == [1] * 5 + [0] * 3 + [1] * 2 and data.writer_test.tolist() == [1, 1]
    assert data.num_classes == data.tokens == 81
    said = capfd.readouterr().err
    assert "train: 1 users whose samples lie in several files are joined, as HAMLET (a.json and b.json)" in said
    assert "train: 1 users have no sample, as NOBODY, and are left out" in said
    last = load(config("leaf_shakespeare", tmp_path, targets="last"), 0)
    assert last.y_train.tolist() == Characters().encode("".join(after)).tolist() and not last.sequence


def tweet(text):
    return ["1467", "Mon Apr 06 2009", "NO_QUERY", "someone", text, "training"]


def tweets(*pairs):
    return [tweet(text) for text, _ in pairs], [label for _, label in pairs]


def sent140_folder(folder):
    place = folder / "leaf_sent140"
    leaf_json(place / "train" / "a.json", {"u2": tweets(("Good good day", 1), ("@you :( bad", 0)), "u0": ([], [])})
    leaf_json(place / "train" / "b.json", {"u1": tweets(("a bad, BAD day", 0.0), ("?!", "1"))})
    leaf_json(place / "test" / "a.json", {"u1": tweets(("good news for u", 1)), "u9": tweets(("day", 0))})
    return place


def test_tweets_by_the_words_of_the_training_part(tmp_path):
    sent140_folder(tmp_path)
    data = load(config("leaf_sent140", tmp_path, vocabulary=3, context=3), 0)
    # bad three times, day and good twice
    numbers = {"bad": 1, "day": 2, "good": 3}
    texts = [["good", "good", "day"], ["you", "bad"], ["a", "bad", "bad"], [""]]  # cut after three words
    wanted = [[numbers.get(word, 0) for word in text] + [-1] * (3 - len(text)) for text in texts]
    assert data.x_train.tolist() == wanted and data.y_train.tolist() == [1, 0, 0, 1]
    assert data.x_test.tolist() == [[3, 0, 0], [2, -1, -1]] and data.y_test.tolist() == [1, 0]
    assert data.writer_train.tolist() == [1, 1, 0, 0] and data.writer_test.tolist() == [0, 2]
    assert data.num_classes == 2 and data.tokens == 4 and data.sample.padded and not data.sequence
    letters = load(config("leaf_sent140", tmp_path, unit="characters"), 0)
    assert letters.tokens == 81 and letters.x_train.shape == (4, len("good news for u"))
    np.testing.assert_array_equal(letters.x_test[1, :3], Characters().encode("day"))


def test_tweets_are_dealt_by_label_and_by_user(tmp_path):
    sent140_folder(tmp_path)
    data = load(config("leaf_sent140", tmp_path), 0)
    cfg = config("leaf_sent140", partition="writer", writers=2, min_images_per_writer=2, holdout_fraction=0.0)
    assert split(data, cfg, 2, 1, 0).summary["writers"] == [1, 1]
    cfg = config("leaf_sent140", partition="labels", labels_per_client=1, holdout_fraction=0.0)
    assert sorted(map(sorted, split(data, cfg, 2, 1, 0).summary["labels"])) == [[0, 2], [0, 2]]
    with pytest.raises(
        UserError, match="data.targets='last': allowed where each step has a target; .* a label for each"
    ):
        load(config("leaf_sent140", tmp_path, targets="last"), 0)


REFUSED = {
    "window shorter": ("leaf_shakespeare", (["abcd", "abc"], ["e", "d"]), "user u, sample 1: 3 characters, its first"),
    "target longer": (
        "leaf_shakespeare",
        (["abcd"], ["ef"]),
        "user u, sample 0: expected a text in x and one character",
    ),
    "no target": ("leaf_shakespeare", (["abcd"], [""]), "user u, sample 0: expected a text in x and one character"),
    "no text": ("leaf_shakespeare", ([["a"]], ["b"]), "user u, sample 0: expected a text in x"),
    "one character": (
        "leaf_shakespeare",
        (["a"], ["b"]),
        "windows of 1 to 8 characters; allowed: one length from 2 on",
    ),
    "another length": ("leaf_shakespeare", (["abc"], ["d"]), "windows of 3 to 8 characters; allowed: one length"),
    "fewer": ("leaf_shakespeare", (["abcd"], []), "user u has 1 samples, 0 labels, num_samples 0"),
    "short tweet": (
        "leaf_sent140",
        ([["1", "2", "3", "4"]], [0]),
        "user u, sample 0: expected a list in x whose fifth",
    ),
    "number": ("leaf_sent140", ([[1, 2, 3, 4, 5]], [0]), "user u, sample 0: expected a list in x whose fifth entry"),
    "text alone": (
        "leaf_sent140",
        (["a text"], [0]),
        "user u, sample 0: expected a list in x whose fifth entry is the",
    ),
    "label 4": ("leaf_sent140", ([tweet("x")], [4]), "user u, sample 0: label 4, allowed are 0 and 1"),
    "label true": ("leaf_sent140", ([tweet("x")], [True]), "user u, sample 0: label True, allowed are 0 and 1"),
    "label nan": ("leaf_sent140", ([tweet("x")], [float("nan")]), "user u, sample 0: label nan, allowed are 0 and 1"),
    "label list": ("leaf_sent140", ([tweet("x")], [[1]]), "user u, sample 0: label [1], allowed are 0 and 1"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_damaged_samples_are_refused_in_a_line(tmp_path, fault):
    name, content, said = REFUSED[fault]
    place = {"leaf_shakespeare": shakespeare_folder, "leaf_sent140": sent140_folder}[name](tmp_path)
    leaf_json(place / "train" / "c.json", {"u": content})
    with pytest.raises(UserError) as e:
        load(config(name, tmp_path), 0)
    assert said in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["leaf_shakespeare", "leaf_sent140"])
def test_folders_that_are_none(tmp_path, name):
    def fails(said):
        with pytest.raises(UserError) as e:
            load(config(name, tmp_path), 0)
        assert said in str(e.value) and "\n" not in str(e.value) and str(tmp_path / name) in str(e.value)

    fails(f"data.name={name}: no folder")
    place = tmp_path / name
    place.mkdir()
    fails("no LEAF files; expected train/*.json and test/*.json")
    leaf_json(place / "all_data" / "all.json", {"u": ([], [])})
    fails("its files are not divided; put the folders train and test")
    leaf_json(place / "train" / "a.json", {"u": ([], [])})
    fails("no *.json in its folder test")
    leaf_json(place / "test" / "a.json", {"u": ([], [])})
    fails("its train files hold no sample")
    (place / "train" / "a.json").write_text('{"users": ["u"], "num_samples"')
    fails("a.json: not a JSON file")


def test_a_copied_file_would_count_twice(tmp_path):
    place = sent140_folder(tmp_path)
    (place / "train" / "copy.json").write_bytes((place / "train" / "a.json").read_bytes())
    with pytest.raises(UserError, match=r"copy\.json: user u2 has the same samples in a\.json; take one of the files"):
        load(config("leaf_sent140", tmp_path), 0)

"""Texts and waveforms of tensorflow-datasets: by a stand-in for a builder, and by the library without TensorFlow."""

import subprocess
import sys
import types

import numpy as np
import pytest
from paths import ROOT
from texts import config

from prfl_jax.data import load, prepared
from prfl_jax.data.audio import log_mel
from prfl_jax.data.text.vocabulary import Characters
from prfl_jax.system.errors import UserError

LABEL = types.SimpleNamespace(num_classes=3)


class FakeBuilder:
    """What `prepared` uses of a builder: features by name, and records of both splits."""

    def __init__(self, features, train, test):
        self.info = types.SimpleNamespace(features=features)
        self.records = {"train": train, "test": test}

    def as_data_source(self, part):
        return self.records[part]


@pytest.fixture
def read(tmp_path, monkeypatch):
    def load_from(features, train, test, **changes):
        package = types.SimpleNamespace(builder=lambda name, data_dir: FakeBuilder(features, train, test))
        monkeypatch.setattr(prepared, "tensorflow_datasets", lambda needed_for: package)
        return load(config("tfds:own", tmp_path, **changes), 0)

    return load_from


def rows(name, values, labels=None):
    labels = [None] * len(values) if labels is None else labels
    return [{name: v} if y is None else {name: v, "label": y} for v, y in zip(values, labels, strict=True)]


@pytest.mark.parametrize("name", ["text", "sentence"])
def test_texts_with_a_label_are_sequences_of_words(read, name):
    train = rows(name, [b"A good, good film", b"bad!", b"", "a b\u00e4d one".encode()], [2, 0, 1, -1])
    test = rows(name, [b"good and bad and all", b"\xff?"], [2, 0])
    data = read({name: None, "label": LABEL}, train, test, vocabulary=3, context=4)
    # a and good twice, then bad (before b\u00e4d, film, one)
    assert data.x_train.tolist() == [[1, 2, 2, 0], [3, -1, -1, -1], [0, -1, -1, -1]]
    assert data.x_test.tolist() == [[2, 0, 3, 0], [0, -1, -1, -1]] and data.y_test.tolist() == [2, 0]
    assert data.y_train.tolist() == [2, 0, 1] and data.num_classes == 3 and data.tokens == 4
    assert data.notes[0] == "1 of 4 training samples have no label (-1) and are left out"
    letters = read({name: None, "label": LABEL}, train, test, unit="characters")
    assert letters.tokens == 81 and letters.x_train[1, :5].tolist() == [*Characters().encode("bad!"), -1]


def test_texts_without_a_label_are_a_language_model(read):
    train, test = (
        rows("text", [b"One two. Two", b"three four five? six"]),
        rows("text", [b"two seven one six five four"]),
    )
    data = read({"text": None}, train, test, context=3, vocabulary=4)
    # <eos> three times (also at the end of each text), two twice, then five and four
    numbers = {"<eos>": 1, "two": 2, "five": 3, "four": 4}
    stream = "one two <eos> two <eos> three four five <eos> six <eos>".split()
    tokens = [numbers.get(word, 0) for word in stream]
    assert data.x_train.tolist() == [tokens[k : k + 3] for k in (0, 3, 6)]
    assert data.y_train.tolist() == [tokens[k + 1 : k + 4] for k in (0, 3, 6)] and data.tokens == 5
    letters = read({"text": None}, train, test, context=5, unit="characters")
    np.testing.assert_array_equal(
        letters.x_train.ravel()[:30], Characters().encode("One two. Two\nthree four five? six\n")[:30]
    )
    with pytest.raises(UserError, match=r"data\.name=tfds:own: no training text is longer than data\.context=80"):
        read({"text": None}, train, test)


@pytest.mark.slow  # importing librosa takes seconds
def test_waveforms_become_log_mel_frames(read):
    pytest.importorskip("librosa", reason="librosa is not installed (the extra audio)")
    rng = np.random.default_rng(0)
    waves = [rng.integers(-9000, 9000, size) for size in (800, 2000, 400)]
    data = read({"audio": None, "label": LABEL}, rows("audio", waves[:2], [0, 2]), rows("audio", waves[2:], [1]))
    assert data.x_train.shape == (2, 10, 40) and data.x_test.shape == (1, 10, 40) and data.num_classes == 3
    frames = log_mel("a: b", waves[0], 16_000)
    np.testing.assert_array_equal(data.x_train[0, : len(frames)], frames)
    assert np.isnan(data.x_train[0, len(frames) :]).all() and data.sample.padded and data.y_train.tolist() == [0, 2]
    slow = types.SimpleNamespace(sample_rate=8_000)
    data = read({"audio": slow, "label": LABEL}, rows("audio", waves[:2], [0, 2]), rows("audio", waves[2:], [1]))
    np.testing.assert_array_equal(data.x_train[1], log_mel("a: b", waves[1], 8_000))


REFUSED = {
    "no samples": (
        {"label": LABEL, "video": None},
        rows("video", [1], [0]),
        "no feature image or audio or text or sentence, it has label, video; write",
    ),
    "no features": ({}, [{}], "no feature image or audio or text or sentence, it has none"),
    "audio without a label": (
        {"audio": None},
        rows("audio", [np.zeros(600)]),
        "no feature label; needed are audio and label",
    ),
    "no number of classes": (
        {"text": None, "label": 3},
        rows("text", [b"a"], [0]),
        "its label, a int, does not say how many",
    ),
    "no text": (
        {"text": None, "label": LABEL},
        rows("text", [b"a", 7], [0, 1]),
        "text 1 of split train is a int, expected a text",
    ),
    "no waveform": (
        {"audio": None, "label": LABEL},
        rows("audio", [np.zeros((1, 2, 3))], [0]),
        "audio 0 of split train: float64 [1, 2, 3], expected",
    ),
    "label out of range": (
        {"text": None, "label": LABEL},
        rows("text", [b"a", b"b"], [0, 3]),
        "y_train holds 3, allowed are 0..2",
    ),
    "no label at all": (
        {"text": None, "label": LABEL},
        rows("text", [b"a", b"b"], [-1, -1]),
        "none of its 2 training samples has a label (all are -1)",
    ),
    "empty split": ({"text": None, "label": LABEL}, [], "split train is empty"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_none_of_these_is_refused_in_a_line(read, fault):
    features, train, said = REFUSED[fault]
    with pytest.raises(UserError) as e:
        read(features, train, train)
    assert str(e.value).startswith("data.name=tfds:own: ") and said in str(e.value) and "\n" not in str(e.value)


BUILDER = '''
"""A builder whose features tensorflow-datasets writes and reads without TensorFlow."""
import numpy as np
import tensorflow_datasets as tfds


class SaidAndWritten(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(num_classes=2)}
        return self.dataset_info_from_configs(description="Texts.", features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {"train": self._generate_examples(6), "test": self._generate_examples(3)}

    def _generate_examples(self, count):
        for i in range(count):
            yield i, {"text": ["bad film", "good, good film"][i % 2], "label": i % 2}
'''
READ = """
import said_and_written
import tensorflow_datasets as tfds
from prfl_jax.config.defaults import default_config
from prfl_jax.data import load
said_and_written.SaidAndWritten(data_dir=".", file_format="array_record").download_and_prepare()
cfg = default_config().data
cfg.name, cfg.dir, cfg.vocabulary = "tfds:said_and_written", ".", 3
data = load(cfg, 0)
print(sorted(map(tuple, data.x_train.tolist())), sorted(data.y_test.tolist()), data.tokens)
cfg.name = "tfds:spoken_digit"
try: load(cfg, 0)
except Exception as e: print(type(e).__name__, str(e).count(chr(10)), e)
"""


@pytest.mark.slow
def test_texts_are_read_by_the_library_itself(tmp_path):
    (tmp_path / "said_and_written").mkdir()
    (tmp_path / "said_and_written" / "__init__.py").write_text("from said_and_written.builder import SaidAndWritten\n")
    (tmp_path / "said_and_written" / "builder.py").write_text(BUILDER)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{READ}"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stdout.strip().splitlines()
    texts, missing = next(line for line in said if line.startswith("[(")), said[-1]
    # good and film (6 and 3 + 3 times), then bad
    assert texts == f"{sorted([(3, 1, -1)] * 3 + [(2, 2, 1)] * 3)} [0, 0, 1] 4"
    assert missing.startswith("UserError 0 data.name=tfds:spoken_digit: ")

"""Penn TreeBank's files, here small ones of the same layout."""

import pytest
from texts import config

from prfl_jax.data import load
from prfl_jax.system.errors import UserError

TRAIN = " the cat sat \n\n the <unk> sat on N mats \n a cat \n"
TEST = "the dog sat\non N mats a\n"


def write(folder, train=TRAIN, test=TEST):
    (folder / "ptb").mkdir(exist_ok=True)
    for name, text in (("train", train), ("test", test)):
        (folder / "ptb" / f"ptb.{name}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())


def test_words_lines_and_the_files_own_vocabulary(tmp_path):
    write(tmp_path)
    data = load(config("ptb", tmp_path, context=3), 0)
    # <eos> 3 times, cat, sat, the twice, N, a, mats, on once
    numbers = {"<unk>": 0, "<eos>": 1, "cat": 2, "sat": 3, "the": 4, "N": 5, "a": 6, "mats": 7, "on": 8}
    train = "the cat sat <eos> the <unk> sat on N mats <eos> a cat <eos>".split()
    test = "the <unk> sat <eos> on N mats a <eos>".split()
    for x, y, words in ((data.x_train, data.y_train, train), (data.x_test, data.y_test, test)):
        tokens = [numbers[word] for word in words]
        count = (len(tokens) - 1) // 3 * 3
        assert x.ravel().tolist() == tokens[:count] and y.ravel().tolist() == tokens[1 : count + 1]
    assert data.tokens == data.num_classes == 9 and data.writer_train is None and data.sequence
    assert load(config("ptb", tmp_path, context=3, vocabulary=2), 0).tokens == 9  # the file's own
    assert load(config("ptb", tmp_path, context=8), 0).x_test.shape == (1, 8)


def test_what_is_missing_or_no_text(tmp_path):
    with pytest.raises(UserError, match=r"data\.name=ptb: no file .*ptb\.train\.txt .*set data\.dir.*ptb\.test\.txt"):
        load(config("ptb", tmp_path), 0)
    write(tmp_path)
    with pytest.raises(UserError, match=r"no training text is longer than data\.context=80; allowed are 2\.\.13"):
        load(config("ptb", tmp_path), 0)
    write(tmp_path, test="\n \n")
    with pytest.raises(UserError, match="there is no test text"):
        load(config("ptb", tmp_path, context=3), 0)
    write(tmp_path, train=b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"ptb\.train\.txt: no text in UTF-8") as e:
        load(config("ptb", tmp_path, context=3), 0)
    assert "\n" not in str(e.value)

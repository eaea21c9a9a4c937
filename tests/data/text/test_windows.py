"""Windows of tokens, and parts by position."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prfl_jax.data.text.samples import encoded, language_data
from prfl_jax.data.text.vocabulary import Characters, Words
from prfl_jax.data.text.windows import divided, longest, windows
from prfl_jax.system.errors import UserError


@given(st.lists(st.integers(0, 30), max_size=5), st.integers(1, 7))
def test_windows_equal_a_loop(sizes, context):
    streams = [np.arange(size, dtype=np.int32) + 100 * k for k, size in enumerate(sizes)]
    wanted = []
    for k, stream in enumerate(streams):
        begin = 0
        while begin + context < len(stream):  # the target of the last token is there too
            wanted.append((stream[begin : begin + context], stream[begin + 1 : begin + context + 1], k))
            begin += context
    found = windows(streams, context)
    assert found.x.dtype == found.y.dtype == np.int32 and found.x.shape == found.y.shape == (len(wanted), context)
    for row, (x, y, k) in enumerate(wanted):
        assert found.x[row].tolist() == x.tolist() and found.y[row].tolist() == y.tolist() and found.stream[row] == k


def test_the_end_of_each_stream_is_for_testing():
    streams = [np.arange(10), np.arange(7), np.arange(0), np.arange(1)]
    train, test = divided(streams, 0.2)
    assert [len(part) for part in train] == [8, 6, 0, 1] and [len(part) for part in test] == [2, 1, 0, 0]
    for stream, one, other in zip(streams, train, test, strict=True):
        assert np.concatenate([one, other]).tolist() == stream.tolist()


def test_a_context_that_no_text_fills():
    streams = [np.zeros(9, np.int32), np.zeros(30, np.int32)]
    assert longest(streams) == 29
    made = language_data("data.name=own", streams, streams, 29, 5, by_stream=True)
    assert made.x_train.shape == (1, 29) and made.writer_train.tolist() == [1]
    with pytest.raises(UserError, match=r"data\.name=own: no test text is longer than data\.context=29; .* 2\.\.8$"):
        language_data("data.name=own", streams, streams[:1], 29, 5, by_stream=True)
    with pytest.raises(UserError, match="data.name=own: there is no training text"):
        language_data("data.name=own", [np.zeros(1, np.int32)], streams, 2, 5, by_stream=False)


def test_whole_texts_are_cut_and_padded():
    texts = {"train": ["a b c d", "", "b"], "test": ["c?!", "a a"]}
    found = encoded(texts, Words([["a", "b", "c"]], 3), 3)
    assert found["x_train"].tolist() == [[1, 2, 3], [0, -1, -1], [2, -1, -1]]
    assert found["x_test"].tolist() == [[3, -1, -1], [1, 1, -1]]
    short = encoded({"train": ["", "ab"], "test": [""]}, Characters(), 80)
    assert short["x_train"].shape == (2, 2) and short["x_train"][0].tolist() == [80, -1]
    assert short["x_test"].tolist() == [[80, -1]] and short["x_test"].dtype == np.int32

"""`.npz` files of series and sequences of tokens: lengths, targets and vocabularies, and what is refused."""

import numpy as np
import pytest
from texts import config

from prfl_jax.data import Dataset, load, split
from prfl_jax.data.check import checked_arrays
from prfl_jax.data.step_targets import last_targets
from prfl_jax.data.targets import check_targets
from prfl_jax.system.errors import UserError

N, M, T, C = 12, 5, 6, 2
RNG = np.random.default_rng(0)
SERIES = {
    "x_train": RNG.normal(size=(N, T, C)),
    "y_train": np.arange(N) % 3,
    "x_test": RNG.normal(size=(M, T, C)).astype(np.float16),
    "y_test": np.arange(M) % 3,
}
TOKENS = {
    "x_train": RNG.integers(0, 9, (N, T)),
    "y_train": RNG.integers(0, 9, (N, T)),
    "x_test": RNG.integers(0, 9, (M, T)).astype(np.int16),
    "y_test": RNG.integers(0, 9, (M, T)).astype(np.int8),
    "tokens": 9,
}
LENGTHS = {"length_train": np.arange(N) % T + 1, "length_test": np.full(M, T, np.uint8)}
LABELLED = TOKENS | {"y_train": np.arange(N) % 3, "y_test": np.arange(M) % 3}


def read(folder, arrays, **changes):
    np.savez(folder / "own.npz", **arrays)
    return load(config("own.npz", folder, **changes), 0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_series_of_any_float_type(tmp_path, dtype):
    x = SERIES["x_train"].astype(dtype)
    data = read(tmp_path, SERIES | {"x_train": x})
    np.testing.assert_array_equal(data.x_train, x.astype(np.float32))
    assert data.x_train.dtype == data.x_test.dtype == np.float32 and data.tokens == 0 and not data.sample.padded
    flat = read(tmp_path, SERIES | {"x_train": x.reshape(N, -1), "x_test": SERIES["x_test"].reshape(M, -1)})
    assert flat.x_train.shape == (N, T * C)
    deep = read(tmp_path, SERIES | {"x_train": x[..., None], "x_test": SERIES["x_test"][..., None]})
    assert deep.sample.shape == (T, C, 1)


def test_lengths_put_padding_behind_a_sample(tmp_path):
    lengths = LENGTHS
    data = read(tmp_path, SERIES | lengths)
    for row, length in enumerate(lengths["length_train"]):
        np.testing.assert_array_equal(data.x_train[row, :length], np.float32(SERIES["x_train"][row, :length]))
        assert np.isnan(data.x_train[row, length:]).all()
    assert data.sample.padded and not np.isnan(data.x_test).any()
    tokens = read(tmp_path, TOKENS | lengths)
    there = np.arange(T) < lengths["length_train"][:, None]
    np.testing.assert_array_equal(tokens.x_train, np.where(there, TOKENS["x_train"], -1))
    np.testing.assert_array_equal(tokens.y_train, np.where(there, TOKENS["y_train"], -1))
    assert tokens.x_train.dtype == tokens.y_train.dtype == np.int32 and tokens.sequence
    # the same by padding that is there already
    padded = {"x_train": tokens.x_train, "y_train": tokens.y_train}
    np.testing.assert_array_equal(read(tmp_path, TOKENS | padded).x_train, tokens.x_train)


def test_the_vocabulary_is_given_or_the_largest_token(tmp_path):
    assert read(tmp_path, TOKENS | {"tokens": 20}).num_classes == 20
    bare = {name: value for name, value in TOKENS.items() if name != "tokens"}
    assert read(tmp_path, bare).tokens == read(tmp_path, bare).num_classes == 9
    large = bare | {"x_train": bare["x_train"] + 40_000, "y_train": bare["y_train"] + 40_000}
    data = read(tmp_path, large)
    assert data.tokens == data.num_classes == 40_009  # more than labels of samples may have
    labelled = read(tmp_path, LABELLED)
    assert labelled.num_classes == 3 and labelled.tokens == 9 and not labelled.sequence
    last = read(tmp_path, TOKENS, targets="last")
    assert last.y_train.tolist() == TOKENS["y_train"][:, -1].tolist() and last.num_classes == 9


def test_last_targets_of_short_sequences():
    y = np.array([[1, 2, -1], [-1, 3, 4], [5, -1, -1]])
    assert last_targets("x", y).tolist() == [2, 4, 5]
    with pytest.raises(UserError, match="x: sequence 1 has no target"):
        last_targets("x", np.array([[1, 2], [-1, -1]]))


def changed(base, name, at, value):
    array = np.array(base[name])
    array[at] = value
    return {name: array}


REFUSED = {
    "token out of the vocabulary": (
        TOKENS,
        changed(TOKENS, "x_test", (1, 2), 9),
        "token 9 is out of the vocabulary, allowed are 0..8",
    ),
    "target out of the vocabulary": (
        TOKENS,
        changed(TOKENS, "y_train", (0, 1), 9),
        "y_train holds 9, allowed are 0..8, and -1 for none",
    ),
    "negative token": (TOKENS, changed(TOKENS, "x_train", (3, 1), -1), "x_train holds -1 in sequence 3 at step 1"),
    "token -2": (
        TOKENS,
        changed(TOKENS, "x_train", (3, 5), -2),
        "x_train holds -2 in sequence 3 at step 5; allowed: tokens from 0",
    ),
    "empty sequence": (TOKENS, changed(TOKENS, "x_train", 4, -1), "sample 4 of x_train has no step; leave it out"),
    "target behind the end": (
        TOKENS,
        changed(TOKENS, "x_train", (2, 5), -1),
        "y_train holds {y} in sequence 2 at step 5, behind its last token",
    ),
    "target -2": (TOKENS, changed(TOKENS, "y_test", (0, 0), -2), "y_test holds -2, allowed are 0..8, and -1 for none"),
    "no target": (TOKENS, {"y_test": np.full((M, T), -1)}, "y_test holds no target, all are -1"),
    "float targets": (TOKENS, {"y_train": TOKENS["y_train"] / 2}, "y_train is float64 [12, 6], expected whole numbers"),
    "targets of another length": (
        TOKENS,
        {"y_train": TOKENS["y_train"][:, 1:]},
        "y_train is int64 [12, 5], expected whole numbers [12], or [12, 6]: a target for each token, -1 where",
    ),
    "targets in one part": (TOKENS, {"y_test": np.zeros(M, int)}, "y_train is [12, 6] and y_test [5]: both or none"),
    "no number of tokens": (TOKENS, {"tokens": 2.5}, "tokens is 2.5, allowed is a whole number from 1 to 1000000"),
    "0 tokens": (TOKENS, {"tokens": 0}, "tokens is 0, allowed is a whole number from 1"),
    "many tokens": (TOKENS, {"tokens": 10**7}, "tokens is 10000000, allowed is a whole number from 1 to 1000000"),
    "several tokens": (TOKENS, {"tokens": [3, 4]}, "tokens is [3 4], allowed is a whole number"),
    "huge token": (
        TOKENS,
        changed(TOKENS, "x_train", (0, 0), 2**40),
        "x_train holds 1099511627776; allowed are tokens below",
    ),
    "tokens of three axes": (TOKENS, {"x_train": np.zeros((N, T, 2), int)}, "x_train is int64, expected uint8 pixels"),
    "tokens of one axis": (
        TOKENS,
        {"x_train": np.zeros(N, int)},
        "x_train is int64 [12]; whole numbers are tokens, [N, T]",
    ),
    "test longer": (
        TOKENS,
        {"x_test": np.zeros((M, T + 1), int), "y_test": np.zeros(M, int)},
        "x_train is [12, 6] and x_test [5, 7]: token sequences must be of one shape; put padding",
    ),
    "label out of range": (LABELLED, {"y_train": np.full(N, 10_000)}, "y_train holds 10000, allowed are 0..9999"),
    "label for too few": (
        LABELLED,
        {"y_train": np.zeros(N - 1, int)},
        "y_train is int64 [11], expected whole numbers [12], one for each of the samples",
    ),
    "float labels": (SERIES, {"y_train": np.arange(N) / 2}, "6 of them are no whole numbers, as 0.5"),
    "nan in a series": (
        SERIES,
        changed(SERIES, "x_train", (2, 3, 1), np.nan),
        "x_train holds nan in sample 2 at step 3; allowed: finite numbers, and NaN for all",
    ),
    "nan in one channel at the end": (
        SERIES,
        changed(SERIES, "x_train", (2, 5, 1), np.nan),
        "x_train holds nan in sample 2 at step 5",
    ),
    "infinite": (SERIES, changed(SERIES, "x_test", (0, 0, 0), np.inf), "x_test holds inf in sample 0 at step 0"),
    "beyond float32": (
        SERIES,
        changed(SERIES, "x_train", (1, 0, 0), 1e300),
        "x_train holds 1e+300 in sample 1 at step 0",
    ),
    "nothing there": (SERIES, changed(SERIES, "x_train", 3, np.nan), "sample 3 of x_train has no step"),
    "one axis": (SERIES, {"x_train": np.zeros(N)}, "x_train is float64 [12], expected [N, T, C]"),
    "no steps": (SERIES, {"x_train": np.zeros((N, 0, C))}, "x_train is float64 [12, 0, 2], expected [N, T, C]"),
    "complex": (
        SERIES,
        {"x_train": np.zeros((N, T, C), complex)},
        "x_train is complex128, expected images as uint8, series as floats, tokens as whole numbers; real and imagin",
    ),
    "bytes for tokens": (
        TOKENS,
        {"x_train": TOKENS["x_train"].astype(np.uint8)},
        "x_train is [12, 6], expected [N, H, W] or [N, H, W, C], not empty; uint8 are images; tokens [N, T] are whole "
        "numbers of another type: x.astype(np.int32)",
    ),
    "floats for tokens": (
        TOKENS,
        {"x_train": TOKENS["x_train"].astype(float)},
        "y_train is int64 [12, 6], expected whole numbers [12]; targets at each step are for tokens, and x holds "
        "floats: x.astype(np.int32)",
    ),
    "targets of series": (
        SERIES,
        {"y_train": TOKENS["y_train"]},
        "y_train is int64 [12, 6], expected whole numbers [12]: one for each of the samples; targets at each step",
    ),
    "one-hot labels of sequences": (LABELLED, {"y_train": np.eye(3)[np.arange(N) % 3]}, "argmax(axis=1)"),
    "soft labels of series": (SERIES, {"y_train": np.full((N, 4), 0.25)}, "values.argmax(axis=1)"),
    "texts": (SERIES, {"x_train": np.full((N, T), "a")}, "x_train is <U1, expected uint8 pixels"),
    "two kinds": (
        SERIES,
        {"x_test": TOKENS["x_test"]},
        "x_train is float64 and x_test int16: samples must be of one type",
    ),
    "other channels": (
        SERIES,
        {"x_test": np.zeros((M, T, 3))},
        "x_train is [12, 6, 2] and x_test [5, 6, 3]: series must be of one shape",
    ),
    "length 0": (
        SERIES | LENGTHS,
        {"length_train": np.r_[0, np.ones(N - 1, int)]},
        "length_train holds 0, allowed are 1..6",
    ),
    "length beyond": (TOKENS | LENGTHS, {"length_test": np.full(M, T + 1)}, "length_test holds 7, allowed are 1..6"),
    "float lengths": (
        TOKENS | LENGTHS,
        {"length_test": np.full(M, 2.0)},
        "length_test is float64 [5], expected whole numbers [5]",
    ),
    "lengths of another number": (
        TOKENS | LENGTHS,
        {"length_train": np.ones(M, int)},
        "length_train is int64 [5], expected whole numbers [12]",
    ),
    "lengths of training samples alone": (
        SERIES,
        {"length_train": np.ones(N, int)},
        "length_train is given alone; allowed are length_train and length_test, or none",
    ),
    "lengths of test samples alone": (
        TOKENS,
        {"length_test": np.ones(M, int)},
        "length_test is given alone; allowed are length_train and length_test, or none",
    ),
    "one length": (TOKENS | LENGTHS, {"length_train": 3}, "length_train is int64 [], expected whole numbers [12]"),
    "ragged": (
        TOKENS,
        {"x_train": np.array([np.arange(k + 1) for k in range(N)], object)},
        "holds objects of Python, as ragged arrays do; put padding",
    ),
    "writers": (SERIES, {"writer_train": np.full(N, -1)}, "writer_train holds -1, allowed are 0..2147483647"),
    "too few writers": (
        SERIES,
        {"writer_test": np.zeros(3, int)},
        "writer_test is int64 [3], expected whole numbers [5], one for each of the samples",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_malformed_arrays_are_refused_in_a_line(tmp_path, fault):
    base, change, said = REFUSED[fault]
    with pytest.raises(UserError) as e:
        read(tmp_path, base | change)
    said = said.format(y=TOKENS["y_train"][2, 5]) if "{y}" in said else said
    assert said in str(e.value) and "\n" not in str(e.value) and "own.npz" in str(e.value)


def test_ragged_lists_of_a_plugin():
    ragged = [np.arange(k % 3 + 2) for k in range(N)]
    with pytest.raises(
        UserError, match=r"own: x_train holds 3 shapes, \[2\] and \[3\]: samples \(padded behind .*-1\)"
    ):
        checked_arrays("own", TOKENS | {"x_train": ragged}, None)


def test_lengths_are_not_for_images():
    images = {"x_train": np.zeros((4, 5, 5), np.uint8), "y_train": np.arange(4), "length_train": np.ones(4, int)}
    images |= {"x_test": np.zeros((4, 5, 5), np.uint8), "y_test": np.arange(4)}
    with pytest.raises(
        UserError, match="length_train is given, but x_train is uint8; allowed with series and sequences"
    ):
        checked_arrays("own", images, None)


def test_a_plugin_of_sequences_is_checked_like_a_file(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\nfrom prfl_jax.data import Dataset\n\n\ndef made(folder):\n"
        "    x = np.array([[1, 2, 7], [3, 1, 0]])\n"
        "    return Dataset('own', x, x, x, x, None, tokens=LARGEST, length_train=np.array([1, 3]),\n"
        "                   length_test=np.array([3, 3]))\n"
    )
    text = (tmp_path / "mine.py").read_text()
    cfg = config(f"{tmp_path}/mine.py:made")
    (tmp_path / "mine.py").write_text(text.replace("LARGEST", "8"))
    data = load(cfg, 0)
    assert data.x_train.tolist() == [[1, -1, -1], [3, 1, 0]] == data.y_train.tolist() and data.tokens == 8
    (tmp_path / "mine.py").write_text(text.replace("LARGEST", "7"))
    with pytest.raises(UserError, match=r"mine\.py:made': y_test holds 7, allowed are 0\.\.6") as e:
        load(cfg, 0)
    assert "\n" not in str(e.value)


def test_partition_limits_and_hold_out_speak_of_samples(tmp_path):
    data = read(tmp_path, SERIES)
    for settings, clients, batch, said in [
        (dict(partition="iid"), 3, 5, r"client 0 has 4 samples.* or more samples$"),
        (dict(partition="iid"), 13, 1, r"clients\.number=13: allowed is at most 12, the samples to train on"),
        (dict(partition="iid", holdout_fraction=1.0), 3, 1, r"12 held-out samples leave none to train on"),
        (dict(partition="dirichlet", alpha=0.01), 4, 3, r"client \d has \d+ samples.* fewer clients or more samples$"),
        (dict(partition="writer"), 3, 1, r"does not say who wrote a sample; allowed are iid"),
    ]:
        cfg = config("own.npz", tmp_path, **{"holdout_fraction": 0.0, **settings})
        with pytest.raises(UserError, match=said) as e:
            split(data, cfg, clients, batch, 0)
        assert "image" not in str(e.value).replace("min_images_per_writer", "")


def test_samples_fit_the_task(tmp_path):
    check_targets("classification", read(tmp_path, SERIES))
    check_targets("classification", read(tmp_path, LABELLED))
    check_targets("classification", read(tmp_path, TOKENS, targets="last"))
    check_targets("language_model", read(tmp_path, TOKENS))
    with pytest.raises(
        UserError, match="task.name='language_model': learns token sequences with a target at each step"
    ):
        check_targets("language_model", read(tmp_path, LABELLED))
    with pytest.raises(UserError, match="has token sequences with a target at each step; allowed: language_model"):
        check_targets("classification", read(tmp_path, TOKENS))


def test_steps_of_a_data_set_are_counted_once():
    data = Dataset("own", np.zeros((3, 4), np.int32), np.zeros(3, np.int32), np.zeros((1, 4), np.int32), np.zeros(1), 2)
    assert data.sample is data.sample

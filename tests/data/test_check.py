"""One check for every data set, wherever it comes from: what is refused, and what is left out."""

import sys

import numpy as np
import pytest
from data_sources import FILES, NAMES, TEST, TRAIN, FakeBuilder, Sources, good

from prfl_jax import data
from prfl_jax.data import Dataset, prepare
from prfl_jax.system import notices
from prfl_jax.system.errors import UserError


@pytest.fixture
def load(tmp_path, monkeypatch):
    every = Sources(tmp_path, monkeypatch)
    return lambda name, arrays: data.load(getattr(every, name)(arrays), 0)


@pytest.mark.parametrize("name", NAMES)
def test_a_good_set_is_loaded_in_one_form_without_a_word(load, name):
    # the embedded set's fifth image of a label is a test image: labels by fours
    arrays = good() | {"y_train": np.arange(TRAIN) // 4}
    if name == "embedded":
        arrays["y_train"] = np.repeat(np.arange(8), 5)
    got = load(name, arrays)
    assert got.x_train.shape[1:] == got.x_test.shape[1:] == (8, 8, 1)
    assert got.x_train.dtype == got.x_test.dtype == np.uint8 and got.y_train.dtype == got.y_test.dtype == np.int32
    assert got.num_classes == 10
    if name != "embedded":
        assert got.notes == ()
        np.testing.assert_array_equal(got.x_train[..., 0], arrays["x_train"])
        np.testing.assert_array_equal(got.y_test, arrays["y_test"])
        assert (len(got.y_train), len(got.y_test)) == (TRAIN, TEST)


def changed(part, index, value, dtype=None):
    def change(arrays):
        labels = arrays[f"y_{part}"].astype(dtype or arrays[f"y_{part}"].dtype)
        labels[index] = value
        return {f"y_{part}": labels}

    return change


# What no source may let through: how it comes about, and what the line has to say.
LABELS = {
    "half": (changed("train", 3, 1.5, float), r"is float64 \[40\], expected whole numbers \[40\].*1 of .* as 1\.5"),
    "whole floats": (changed("train", 3, 1.0, float), r"is float64 \[40\], expected whole numbers \[40\].*astype"),
    "nan": (changed("test", 3, np.nan, float), r"is float64 \[12\], expected whole numbers \[12\].*as nan"),
    "infinite": (changed("test", 3, np.inf, np.float32), r"is float32 \[12\].*as inf"),
    "bool": (lambda a: {"y_train": a["y_train"] > 4}, r"is bool \[40\], expected whole numbers"),
    "text": (lambda a: {"y_train": a["y_train"].astype(str)}, r"is <U\d+ \[40\], expected.*return_inverse"),
    "column": (lambda a: {"y_train": a["y_train"][:, None]}, r"is int64 \[40, 1\], expected whole .*; drop"),
    "one-hot": (lambda a: {"y_train": np.eye(10)[a["y_train"]]}, r"is float64 \[40, 10\].*argmax\(axis=1\)"),
    "huge": (changed("train", 3, 2**40), r"holds 1099511627776, allowed are 0\.\.9"),
    "wraps to 1": (changed("test", 3, 2**32 + 1), r"holds 4294967297, allowed are 0\.\.9"),
    "unsigned": (changed("train", 3, 2**64 - 1, np.uint64), r"holds 18446744073709551615, allowed are 0\.\.9"),
    "bytes of -1": (changed("train", 3, 255, np.uint8), r"holds 255, allowed are 0\.\.9"),
    "less than -1": (changed("test", 3, -2), r"holds -2, allowed are 0\.\.9"),
    "one too large": (changed("test", 3, 10), r"holds 10, allowed are 0\.\.9"),
    "from 1": (lambda a: {"y_train": a["y_train"] + 1}, r"holds 10, allowed are 0\.\.9; they begin at 1: sub"),
}


@pytest.mark.parametrize("name", [n for n in NAMES if n != "embedded"])
@pytest.mark.parametrize("fault", LABELS)
def test_labels_that_are_none_are_refused_by_every_source(load, name, fault):
    change, said = LABELS[fault]
    arrays = good()
    arrays |= change(arrays)
    if name == "npz":  # a file does not say how many classes there are
        if fault in ("bytes of -1", "one too large", "from 1"):
            return
        said = said.replace(r"0\.\.9", r"0\.\.9999")
    with pytest.raises(UserError, match=said) as e:
        load(name, arrays)
    assert "\n" not in str(e.value) and ": y_t" in str(e.value)


IMAGES = {
    "float": (lambda x: x / 255, r"is float64(, expected| and x_test) uint8.*it holds 0 to 1: np\.rint\(255 \* x\)"),
    "float to 255": (
        lambda x: x.astype(np.float32),
        r"is float32(, expected| and x_test) uint8.*holds 0 to 255: np\.rint\(x\)",
    ),
    "negative": (lambda x: x / 127.5 - 1, r"is float64(, expected| and x_test) uint8.*holds -1 to 1: scale that"),
    "nan": (
        lambda x: np.where(x > 200, np.nan, x),
        r"is float64, expected uint8.*holds nan|holds nan in sample 0 at step",
    ),
    "int64": (lambda x: x.astype(np.int64), r"is int64, expected uint8.*astype\(np\.uint8\)"),
    "16 bit": (lambda x: x.astype(np.uint16) * 257, r"is uint16, expected uint8.*65535: scale"),
    "bool": (lambda x: x > 99, r"is bool, expected uint8.*\* 255"),
    "flat": (lambda x: x.reshape(len(x), -1), r"\[\d+, 64\], expected \[N, H, W\] or \[N, H, W, C\], not empty"),
    "video": (lambda x: x[:, None, :, :, None], r"\[\d+, 1, 8, 8, 1\], expected \[N, H, W\]"),
    "no height": (lambda x: x[:, :0], r"\[\d+, 0, 8\], expected \[N, H, W\] or \[N, H, W, C\], not empty"),
}


@pytest.mark.parametrize("name", [n for n in NAMES if n != "embedded"])
@pytest.mark.parametrize("fault", IMAGES)
def test_images_that_are_none_are_refused_by_every_source(load, name, fault):
    change, said = IMAGES[fault]
    arrays = good()
    arrays["x_train"][0, 0, :2], arrays["x_train"][1, 0, :2] = (0, 255), (0, 255)
    arrays |= {"x_train": change(arrays["x_train"])}
    with pytest.raises(UserError, match=said) as e:
        load(name, arrays)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "embedded"])
def test_train_and_test_images_have_one_shape_and_are_some(load, name):
    with pytest.raises(UserError, match=r"x_train is \[40, 8, 8, 1\] and x_test \[12, 8, 9, 1\]: images must be"):
        load(name, good() | {"x_test": np.ones((TEST, 8, 9), np.uint8)})
    for part in ("train", "test"):
        empty = {f"x_{part}": np.zeros((0, 8, 8), np.uint8), f"y_{part}": np.zeros(0, np.int64)}
        with pytest.raises(UserError, match="empty") as e:
            load(name, good() | empty)
        assert part in str(e.value) and "\n" not in str(e.value)


def test_images_of_several_shapes(load):
    ragged = [np.zeros((8, 8), np.uint8)] * 39 + [np.zeros((8, 9), np.uint8)]
    with pytest.raises(UserError, match=r"x_train holds 2 shapes, \[8, 8\] and \[8, 9\]: images must be of one shape"):
        load("function", good() | {"x_train": ragged})
    # one that NumPy would stretch to the others' shape
    thin = [*good()["x_train"][:39], np.zeros((1, 8), np.uint8)]
    with pytest.raises(UserError, match="are of several shapes, the first 8 x 8 x 1 and number 39 1 x 8 x 1"):
        load("tfds", good() | {"x_train": thin})
    for name in ("function", "tfds"):
        with pytest.raises(UserError, match="x_train is object|no array of numbers|is no array|is <U|expected uint8"):
            load(name, good() | {"x_train": [{"pixels": 1}] * TRAIN})


@pytest.mark.parametrize("classes", [0, -1, 2.5, True, "ten", 10**9, np.nan])
def test_the_number_of_classes_of_a_function_is_checked(tmp_path, monkeypatch, classes):
    every = Sources(tmp_path, monkeypatch)
    cfg = every.function(good())
    module = sys.modules["checked_function"]
    module.images = lambda folder: Dataset("own", num_classes=classes, **good())
    with pytest.raises(UserError, match=r"num_classes is '.*', allowed is a whole number from 1 to 1000000, or None"):
        data.load(cfg, 0)
    for fine in (10, np.int64(10), None):
        module.images = lambda folder, fine=fine: Dataset("own", num_classes=fine, **good())
        assert data.load(cfg, 0).num_classes == 10 and type(data.load(cfg, 0).num_classes) is int


@pytest.mark.parametrize("name", ["tfds", "cifar10_tfds", "femnist"])
def test_images_without_a_label_are_left_out_and_counted(load, name):
    arrays = good(classes=5)
    arrays["y_train"][[0, 7, 8]] = -1
    arrays["y_test"][[2, 11]] = -1
    got = load(name, arrays)
    kept, kept_test = np.delete(np.arange(TRAIN), [0, 7, 8]), np.delete(np.arange(TEST), [2, 11])
    np.testing.assert_array_equal(got.x_train[..., 0], arrays["x_train"][kept])
    np.testing.assert_array_equal(got.y_train, arrays["y_train"][kept])
    np.testing.assert_array_equal(got.x_test[..., 0], arrays["x_test"][kept_test])
    np.testing.assert_array_equal(got.y_test, arrays["y_test"][kept_test])
    if name == "femnist":  # writers w0, w1, w2 in turn
        np.testing.assert_array_equal(got.writer_train, kept % 3)
        np.testing.assert_array_equal(got.writer_test, kept_test % 3)
    assert got.notes[:2] == (
        "3 of 40 training images have no label (-1) and are left out",
        "2 of 12 test images have no label (-1) and are left out",
    )
    for part, size in (("train", TRAIN), ("test", TEST)):
        words = {"train": "training", "test": "test"}[part]
        with pytest.raises(UserError, match=f"none of its {size} {words} images has a label .*x_test and y_test") as e:
            load(name, good() | {f"y_{part}": np.full(size, -1)})
        assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", [*FILES, "function"])
def test_label_minus_one_of_plugin_data_is_refused(load, name):
    arrays = good(classes=2)
    with pytest.raises(UserError, match=r"y_train holds -1, allowed are 0\.\..*20 of 40 are negative.*from 0"):
        load(name, arrays | {"y_train": 2 * arrays["y_train"] - 1})


def test_a_tensorflow_datasets_set_without_the_splits(tmp_path, monkeypatch):
    every = Sources(tmp_path, monkeypatch)
    cfg = every.tfds(good())
    every._builder(FakeBuilder(good(), splits={"train": 1, "validation": 2}))
    with pytest.raises(UserError, match="data.name=tfds:own: no split test, it has train, validation; write") as e:
        data.load(cfg, 0)
    assert "download_and_prepare" not in str(e.value)


# --- what prepare_data.py writes ---


def test_what_is_prepared_is_checked_before_it_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notices, "_said", set())
    arrays = good((28, 28))
    wrong = {"x_train": arrays["x_train"], "y_train": arrays["y_train"].astype(np.uint8)}
    wrong |= {"x_test": arrays["x_test"], "y_test": np.full(TEST, 11, np.uint8)}
    folder = tmp_path / "mnist"
    folder.mkdir()
    for name, file in prepare.MNIST_FILES.items():
        values = wrong[name]
        head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
        (folder / file).write_bytes(head + values.tobytes())
    for part, file in prepare.QMNIST_FILES.items():
        rows = np.zeros((len(wrong[f"y_{part}"]), 8), ">i4")
        rows[:, 0] = wrong[f"y_{part}"]
        (folder / file).write_bytes(bytes([0, 0, 12, 2]) + np.array(rows.shape, ">i4").tobytes() + rows.tobytes())
    with pytest.raises(UserError, match=r"mnist_by_writer\.npz: y_test holds 11, allowed are 0\.\.9"):
        prepare.prepare_mnist_by_writer(folder, folder, tmp_path / "data")
    assert not list((tmp_path / "data").iterdir()) and capsys.readouterr().err == ""

    one = bytes([7]) + bytes(3072)
    cifar = tmp_path / "cifar"
    cifar.mkdir()
    for name in sum(prepare.CIFAR10_FILES.values(), []):
        (cifar / name).write_bytes(2 * one)
    path = prepare.prepare_cifar10(cifar, tmp_path / "data")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"note: {path}: 10 training and 2 test images, 10 classes"
    assert f"warning: {path}: all 10 training images have one label, 7" in lines

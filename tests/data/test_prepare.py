"""Making data sets from their authors' files; the files are small ones written here in the same format."""

import gzip
import json
import pathlib
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from paths import ROOT
from published_files import config, idx

from prfl_jax.data import load, prepare
from prfl_jax.system.errors import UserError


@pytest.fixture
def mnist(tmp_path):
    """Real MNIST digits in MNIST's own files, with made-up writers: 40 for training, 12 for testing."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    source = load(config("mnist_embedded", tmp_path), 0)
    made = {}
    for part, prefix, count, extra in (("train", "train", 40, 0), ("test", "t10k", 12, 8)):
        x, y = source.x_train[::97][:count, ..., 0], source.y_train[::97][:count].astype(np.uint8)
        rows = np.zeros((count + extra, 8), np.int32)
        rows[:count, 0] = y
        rows[:, 1], rows[:, 2] = 4, np.arange(count + extra) % 5 + 2100
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(x)))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(y))
        (folder / f"qmnist-{part}-labels-idx2-int.gz").write_bytes(gzip.compress(idx(rows)))
        made[part] = (x, y, rows[:count])
    return folder, made


# First in a program: as on a machine without TensorFlow, wherever it may be installed.
NO_TENSORFLOW = """
import sys
class Hide:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] == "tensorflow" else self.finder.find_spec(name, path, target)
sys.meta_path[:] = [Hide(finder) for finder in sys.meta_path]
"""


def run_script(*flags, before="import sys"):
    code = f"{before}\nimport runpy\nsys.argv = {['prepare_data.py', *flags]!r}\n"
    code += f"runpy.run_path({str(ROOT / 'scripts' / 'prepare_data.py')!r}, run_name='__main__')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)


def test_mnist_by_writer_joins_images_and_writers(tmp_path, mnist):
    folder, made = mnist
    out = prepare.prepare_mnist_by_writer(folder, folder, tmp_path / "data")
    assert out == tmp_path / "data" / "mnist_by_writer.npz" and list(out.parent.iterdir()) == [out]
    with np.load(out, allow_pickle=False) as file:
        for part, (x, y, rows) in made.items():
            np.testing.assert_array_equal(file[f"x_{part}"], x)
            np.testing.assert_array_equal(file[f"y_{part}"], y)
            np.testing.assert_array_equal(file[f"writer_{part}"], rows[:, 2])
            np.testing.assert_array_equal(file[f"hsf_{part}"], rows[:, 1])
    data = load(config("mnist_by_writer", tmp_path / "data"), 0)
    np.testing.assert_array_equal(data.writer_train, made["train"][2][:, 2])


def test_results_are_replaced_only_by_force(tmp_path, mnist):
    folder, _ = mnist
    out = prepare.prepare_mnist_by_writer(folder, folder, tmp_path)
    out.write_bytes(b"mine")
    with pytest.raises(UserError, match="is there already; --force replaces it"):
        prepare.prepare_mnist_by_writer(folder, folder, tmp_path)
    assert out.read_bytes() == b"mine"
    prepare.prepare_mnist_by_writer(folder, folder, tmp_path, force=True)
    assert len(load(config("mnist_by_writer", tmp_path), 0).y_train) == 40


def test_a_failed_write_leaves_what_was_there(tmp_path, mnist, monkeypatch):
    folder, _ = mnist
    out = prepare.prepare_mnist_by_writer(folder, folder, tmp_path / "data")
    before = out.read_bytes()

    def full_disk(file, **_):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(UserError, match="no space left"):
        prepare.prepare_mnist_by_writer(folder, folder, tmp_path / "data", force=True)
    assert out.read_bytes() == before and list(out.parent.iterdir()) == [out]


def test_mnist_files_are_checked(tmp_path, mnist):
    folder, made = mnist

    def fails(message):
        with pytest.raises(UserError, match=message):
            prepare.prepare_mnist_by_writer(folder, folder, tmp_path / "data")
        assert not list((tmp_path / "data").glob("*"))

    labels = folder / "qmnist-train-labels-idx2-int.gz"
    good, rows = labels.read_bytes(), made["train"][2].copy()
    rows[3, 0] = (rows[3, 0] + 1) % 10
    labels.write_bytes(gzip.compress(idx(rows)))
    fails("1 of 40 classes are not MNIST's train labels")
    labels.write_bytes(gzip.compress(idx(rows[:39])))
    fails(r"expected at least \(40, 8\)")
    labels.write_bytes(good[:-9])
    fails("damaged")
    labels.write_bytes(gzip.compress(idx(rows)[:-4]))
    fails("its header announces")
    labels.write_bytes(gzip.compress(b"something else"))
    fails("not an idx file")
    labels.unlink()
    fails("no file qmnist-train-labels-idx2-int or qmnist-train-labels-idx2-int.gz")
    labels.write_bytes(good)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(made["train"][1][:39]))
    fails("MNIST's train images")


@pytest.fixture
def cifar(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    rng = np.random.default_rng(0)
    files = {}
    for name in sum(prepare.CIFAR10_FILES.values(), []):
        x, y = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, 3, dtype=np.uint8)
        planes = [bytes([label]) + image.transpose(2, 0, 1).tobytes() for image, label in zip(x, y, strict=True)]
        (folder / name).write_bytes(b"".join(planes))
        files[name] = (x, y)
    return folder, files


def test_cifar10_from_folder_parent_and_archive(tmp_path, cifar):
    folder, files = cifar
    archive = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    x = np.concatenate([files[f"data_batch_{i}.bin"][0] for i in range(1, 6)])
    for k, source in enumerate((folder, folder.parent, archive)):
        prepare.prepare_cifar10(source, tmp_path / str(k))
        data = load(config("cifar10", tmp_path / str(k)), 0)
        np.testing.assert_array_equal(data.x_train, x)
        np.testing.assert_array_equal(data.x_test, files["test_batch.bin"][0])
        np.testing.assert_array_equal(data.y_test, files["test_batch.bin"][1])


def test_cifar10_files_are_checked(tmp_path, cifar):
    folder, _ = cifar
    path = folder / "data_batch_2.bin"
    good = path.read_bytes()
    damage = [(good[:-1], "not records of 3073"), (b"\x0b" + good[1:], "label 11"), (b"", "0 bytes")]
    for content, message in damage:
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            prepare.prepare_cifar10(folder, tmp_path / "data")
    path.unlink()
    (tmp_path / "text.tar.gz").write_bytes(b"hello")
    text, nowhere = tmp_path / "text.tar.gz", tmp_path / "x"
    for source, message in ((folder, "no file data_batch_2.bin"), (text, "cannot read"), (nowhere, "no such")):
        with pytest.raises(UserError, match=message):
            prepare.prepare_cifar10(source, tmp_path / "data")


def write_leaf(path: pathlib.Path, users: dict[str, int], seed: int) -> dict:
    """A file as LEAF writes it: white background, dark ink; returns what is in it."""
    rng = np.random.default_rng(seed)
    data = {}
    for user, count in users.items():
        pixels = np.where(rng.random((count, 784)) < 0.8, 1.0, rng.random((count, 784)).round(6))
        data[user] = {"x": pixels.tolist(), "y": rng.integers(0, 62, count).tolist()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"users": list(users), "num_samples": list(users.values()), "user_data": data}))
    return data


def images(data: dict) -> dict[bytes, tuple[int, str]]:
    return {
        np.rint(np.array(x) * 255).astype(np.uint8).tobytes(): (y, user)
        for user, part in data.items()
        for x, y in zip(part["x"], part["y"], strict=True)
    }


@pytest.mark.slow
def test_femnist_is_prepared_without_tensorflow(tmp_path):
    leaf = tmp_path / "leaf"
    train = images(write_leaf(leaf / "train" / "a.json", {"f0002_10": 6, "f0000_14": 4}, 0))
    train |= images(write_leaf(leaf / "train" / "b.json", {"f0001_41": 5}, 1))
    test = images(write_leaf(leaf / "test" / "a.json", {"f0002_10": 2, "f0000_14": 1, "f0001_41": 1}, 2))
    done = run_script("--what=femnist", f"--leaf_dir={leaf}", f"--data_dir={tmp_path / 'data'}", before=NO_TENSORFLOW)
    assert done.returncode == 0, done.stderr
    code = f"""
{NO_TENSORFLOW}
import numpy as np
from prfl_jax.config import default_config
from prfl_jax.data import load
cfg = default_config().data; cfg.name, cfg.dir = "femnist", {str(tmp_path / "data")!r}
d = load(cfg, 0)
try: import tensorflow; raise SystemExit("tensorflow could be imported")
except ImportError: pass
seen = dict(x=d.x_train, y=d.y_train, w=d.writer_train, xt=d.x_test, yt=d.y_test, n=d.num_classes)
np.savez({str(tmp_path / "seen.npz")!r}, **seen)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    names = ["f0000_14", "f0001_41", "f0002_10"]  # writers are numbered in the order of their names
    with np.load(tmp_path / "seen.npz") as seen:
        assert seen["x"].shape == (15, 28, 28, 1) and seen["x"].dtype == np.uint8 and seen["n"] == 62
        got = {x.tobytes(): (y, names[w]) for x, y, w in zip(seen["x"], seen["y"], seen["w"], strict=True)}
        assert got == train
        assert {x.tobytes(): int(y) for x, y in zip(seen["xt"], seen["yt"], strict=True)} == {
            image: label for image, (label, _) in test.items()
        }


def test_femnist_undivided_tests_every_tenth_image_of_a_writer(tmp_path):
    data = write_leaf(tmp_path / "leaf" / "all_data" / "all.json", {"f1": 20, "f0": 35}, 0)
    prepare.prepare_femnist(tmp_path / "leaf", tmp_path)
    got = load(config("femnist", tmp_path), 0)
    assert len(got.y_train) == 50 and len(got.y_test) == 5
    tenths = (("f1", 9), ("f1", 19), ("f0", 9), ("f0", 19), ("f0", 29))
    wanted = {np.rint(np.array(data[user]["x"][i]) * 255).astype(np.uint8).tobytes() for user, i in tenths}
    assert {x.tobytes() for x in got.x_test} == wanted
    assert np.bincount(got.writer_train).tolist() == [32, 18] and np.bincount(got.writer_test).tolist() == [3, 2]
    by_name = load(config("tfds:femnist", tmp_path), 0)
    np.testing.assert_array_equal(by_name.x_train, got.x_train)
    with pytest.raises(UserError, match="--force"):
        prepare.prepare_femnist(tmp_path / "leaf", tmp_path)
    write_leaf(tmp_path / "leaf" / "all_data" / "all.json", {"f1": 10}, 0)
    prepare.prepare_femnist(tmp_path / "leaf", tmp_path, force=True)
    assert len(load(config("femnist", tmp_path), 0).y_train) == 9

    for file in (tmp_path / "femnist").rglob("*.array_record*"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match="femnist: cannot be read from .*prepare_data.py --what=femnist --force"):
        load(config("femnist", tmp_path), 0)
    shutil.rmtree(tmp_path / "femnist")


def test_leaf_files_are_checked(tmp_path):
    def fails(content, message):
        (tmp_path / "a.json").write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(UserError, match=message):
            prepare.prepare_femnist(tmp_path, tmp_path / "data")
        assert not list((tmp_path / "data").glob("*"))

    def one(x, y, size=1):
        return {"users": ["f0"], "num_samples": [size], "user_data": {"f0": {"x": x, "y": y}}}

    good = [0.5] * 784
    with pytest.raises(UserError, match="no LEAF files"):
        prepare.prepare_femnist(tmp_path, tmp_path / "data")
    fails("{", "not a JSON file")
    fails([], "not LEAF's layout")
    fails({"users": ["f0"]}, "not LEAF's layout")
    fails(one([good], [0], 2), "user f0 has 1 images, 1 labels, num_samples 2")
    fails(one([good[1:]], [0]), "user f0, image 0: expected 784 numbers in")
    fails(one([[*good[1:], 1.5]], [0]), "expected 784 numbers in")
    fails(one([[*good[1:], float("nan")]], [0]), "expected 784 numbers in")
    fails(one([[*good[1:], [1]]], [0]), "expected 784 numbers in")
    fails(one([good], [62]), r"label 62, allowed are 0\.\.61")
    fails({"users": ["f0", "f1"], "num_samples": [1], "user_data": {}}, "2 users but 1 entries")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.json").write_text("{}")
    fails(one([good], [0]), r"no \*\.json in its folder test")


@pytest.mark.slow
def test_the_script_makes_mnist_by_writer(tmp_path, mnist):
    folder, _ = mnist
    done = run_script("--what=mnist_by_writer", f"--mnist_dir={folder}", f"--data_dir={tmp_path / 'data'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "data" / "mnist_by_writer.npz")
    mistakes = {
        ("--what=mnist_by_writer", f"--mnist_dir={folder}", f"--data_dir={tmp_path / 'data'}"): "is there already",
        ("--what=cifar10",): "--what=cifar10 needs --cifar_dir=FOLDER",
        ("--what=femnist", "--leaf_dir=/nowhere/at/all"): "--leaf_dir=/nowhere/at/all: no such folder",
    }
    for flags, message in mistakes.items():
        done = run_script(*flags)
        assert done.returncode == 2 and message in done.stderr
        assert done.stderr.startswith("prepare_data.py: ") and len(done.stderr.strip().splitlines()) == 1

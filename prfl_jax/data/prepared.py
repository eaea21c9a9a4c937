"""Data sets that tensorflow-datasets has prepared in a folder; TensorFlow is not needed."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from prfl_jax.data.npz import Arrays
from prfl_jax.errors import UserError


def read_femnist(folder: pathlib.Path) -> Arrays:
    """FEMNIST as `scripts/prepare_data.py` left it in `folder`.

    `writer_train` and `writer_test` number LEAF's writers in the order of their names.

    Raises:
        UserError: it cannot be read.
    """
    from prfl_jax.data.femnist import Femnist

    run = f"run: python scripts/prepare_data.py --what=femnist --force --leaf_dir=FOLDER --data_dir={folder}"
    builder = Femnist(data_dir=str(folder), file_format="array_record")
    arrays, (train, test) = _read("femnist", builder, folder, run)
    _, numbers = np.unique(train + test, return_inverse=True)
    numbers = numbers.astype(np.int32)
    return arrays._replace(writer_train=numbers[: len(train)], writer_test=numbers[len(train) :])


def read_prepared(name: str, folder: pathlib.Path) -> Arrays:
    """Any prepared data set with splits `train` and `test` and features `image` and `label`.

    Args:
        name: as tensorflow-datasets knows it, perhaps with config and version.
        folder: its data folder.

    Raises:
        UserError: it is not there, or not such a data set.
    """
    try:
        import tensorflow_datasets as tfds

        builder = tfds.builder(name, data_dir=str(folder))
    except Exception as e:
        raise UserError(f"data.name=tfds:{name}: not found in {folder} ({_line(e)}); {_how_to(name, folder)}") from e
    arrays, _ = _read(f"tfds:{name}", builder, folder, _how_to(name, folder))
    return arrays


def _how_to(name: str, folder: pathlib.Path) -> str:
    # Preparing most of its data sets needs TensorFlow once; reading them does not.
    return (
        f'run, where TensorFlow is installed: python -c "import tensorflow_datasets as t; '
        f"t.builder('{name}', data_dir='{folder}', file_format='array_record').download_and_prepare()\""
    )


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _read(name: str, builder: Any, folder: pathlib.Path, run: str) -> tuple[Arrays, tuple[list[Any], list[Any]]]:
    """The arrays without writers, and the training and test records' `writer`, None where they have none."""
    missing = {"image", "label"} - set(builder.info.features or {})
    if missing:
        raise UserError(f"data.name={name}: no feature {' and '.join(sorted(missing))}; needed are image and label")
    parts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    writers: dict[str, list[Any]] = {"train": [], "test": []}
    try:
        for part in ("train", "test"):
            source = builder.as_data_source(part)
            x = np.empty((len(source), *_grey(source[0]["image"]).shape), np.uint8)
            y = np.empty(len(source), np.int32)
            for i in range(len(source)):
                record = source[i]
                x[i], y[i] = _grey(record["image"]), record["label"]
                writers[part].append(record.get("writer"))
            parts[part] = x, y
        classes = int(builder.info.features["label"].num_classes)
    except Exception as e:  # whatever it raises, the remedy is the same
        raise UserError(f"data.name={name}: cannot be read from {folder} ({_line(e)}); {run}") from e
    return Arrays(*parts["train"], *parts["test"], classes, None, None), (writers["train"], writers["test"])


def _grey(image: np.ndarray) -> np.ndarray:
    """`[H, W]` or `[H, W, C]` uint8 to `[H, W, C]`."""
    if image.dtype != np.uint8:
        raise ValueError(f"images are {image.dtype}, expected uint8")
    return image if image.ndim == 3 else image[..., None]

"""Reads data sets that tensorflow-datasets has prepared in a folder, without TensorFlow."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from prfl_jax.data.check import PARTS, UNLABELLED, Arrays, checked_arrays
from prfl_jax.data.prepared_features import COLLECT, NPZ, Collect, Records, Split, arrays_of
from prfl_jax.system.errors import UserError
from prfl_jax.tasks import IMAGES


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
    read = _read("femnist", builder, folder, run, {"image": COLLECT["image"]})
    train, test = read.parts["train"].writers, read.parts["test"].writers
    _, numbers = np.unique(train + test, return_inverse=True)
    found = arrays_of(read.parts) | {"writer_train": numbers[: len(train)], "writer_test": numbers[len(train) :]}
    return checked_arrays("data.name=femnist", found, read.classes, UNLABELLED, IMAGES)


def read_prepared(name: str, folder: pathlib.Path, cfg: Any) -> Arrays:
    """Any prepared data set with splits `train` and `test` and one of the features of `COLLECT`, the first it has.

    With a feature `label` samples are classified; one without a label, which tensorflow-datasets marks -1, is left
    out. Texts without it are cut into windows for a language model.

    Args:
        name: as tensorflow-datasets knows it, perhaps with config and version.
        folder: its data folder.
        cfg: the group `data` of the config.

    Raises:
        UserError: it is not there, or not such a data set.
    """
    where = f"data.name=tfds:{name}"
    tfds = tensorflow_datasets(where)
    try:
        builder = tfds.builder(name, data_dir=str(folder))
    except Exception as e:
        package = missing_package(e)
        if package is not None and package not in ("tensorflow_datasets", name.partition("/")[0]):
            raise UserError(f"{where}: needs {package} ({_line(e)}); run: {_install(e)}") from e
        raise UserError(f"{where}: not found in {folder} ({_line(e)}); {_how_to(name, folder)}") from e
    read = _read(f"tfds:{name}", builder, folder, _how_to(name, folder), COLLECT)
    return COLLECT[read.feature].arrays(where, read.parts, read.classes, cfg)


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


class _Read(NamedTuple):
    """What the splits of a prepared data set hold.

    Attributes:
        feature: the name of the samples' feature.
        parts: by split, the samples, labels and writers.
        classes: how many labels there are; None: samples have no label.
    """

    feature: str
    parts: dict[str, Records]
    classes: int | None


def _read(name: str, builder: Any, folder: pathlib.Path, run: str, takes: Mapping[str, Collect]) -> _Read:
    """The records of both splits, samples as `takes` collects them.

    Args:
        takes: by the name of a feature, how samples of it are collected.

    Raises:
        UserError: there is no such feature, no number of classes or no split, or it cannot be read.
    """
    where = f"data.name={name}"
    features = builder.info.features
    keys = set(getattr(features, "keys", tuple)())
    feature = next((key for key in takes if key in keys), None)
    if feature is None:
        raise UserError(f"{where}: no feature {' or '.join(takes)}, it has {', '.join(sorted(keys)) or 'none'}; {NPZ}")
    collect, classes = takes[feature], None
    if "label" in keys:
        classes = getattr(features["label"], "num_classes", None)
        if classes is None:
            kind = type(features["label"]).__name__
            raise UserError(
                f"{where}: its label, a {kind}, does not say how many classes there are, expected a ClassLabel; {NPZ}"
            )
    elif collect.needs_label:
        raise UserError(f"{where}: no feature label; needed are {feature} and label")
    parts: dict[str, Records] = {}
    for part in PARTS:
        there = list(getattr(builder.info, "splits", None) or [])
        if there and part not in there:
            raise UserError(f"{where}: no split {part}, it has {', '.join(there)}; {NPZ}")
        try:
            source = builder.as_data_source(part)
            count = len(source)
            records = (source[i] for i in range(count))
            if count:
                parts[part] = collect(Split(where, part, feature, count, features[feature]), records)
        except UserError:
            raise
        except Exception as e:  # whatever it raises, the remedy is the same
            if missing_package(e) is not None:
                run = f"run: {_install(e)}, or prepare it as array_record: {run.removeprefix('run, ')}"
            raise UserError(f"{where}: cannot be read from {folder} ({_line(e)}); {run}") from e
        if not count:
            raise UserError(f"{where}: split {part} is empty; {run}")
    return _Read(feature, parts, None if classes is None else int(classes))

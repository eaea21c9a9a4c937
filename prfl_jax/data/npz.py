"""Reading a data set from a `.npz` file without trusting it."""

from __future__ import annotations

import pathlib
import zipfile
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from prfl_jax.errors import UserError

_MAX_CLASSES = 10_000  # a larger label is a mistake, not a data set


class Arrays(NamedTuple):
    """The arrays of a `Dataset`, in its types and shapes, and its number of classes."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    num_classes: int
    writer_train: np.ndarray | None
    writer_test: np.ndarray | None


def read_npz(path: pathlib.Path, num_classes: int | None = None) -> Arrays:
    """Read and check `x_train`, `y_train`, `x_test`, `y_test` and, if there, `writer_train` and `writer_test`.

    Args:
        path: an existing file. Images are uint8 `[N, H, W]` or `[N, H, W, C]`,
            labels and writers whole numbers `[N]`, none negative.
        num_classes: what the labels must be below; None: the largest label + 1.

    Raises:
        UserError: the file is damaged or an array is missing or not as described.
    """
    return checked_arrays(path, _read(path), num_classes)


def checked_arrays(path: pathlib.Path | str, found: Mapping[str, np.ndarray | None], num_classes: int | None) -> Arrays:
    """Arrays of a data set, from `path` or as an error's text begins with it, checked as `read_npz` says.

    Raises:
        UserError: an array is missing (or None) or not as described.
    """
    there = {name: np.asarray(array) for name, array in found.items() if array is not None}
    for name in ("x_train", "y_train", "x_test", "y_test"):
        if name not in there:
            raise UserError(f"{path}: no array {name}; expected x_train, y_train, x_test, y_test")
    x_train, x_test = (_images(path, name, there[name]) for name in ("x_train", "x_test"))
    if x_train.shape[1:] != x_test.shape[1:]:
        raise UserError(
            f"{path}: x_train is {_shape(x_train.shape)} and x_test {_shape(x_test.shape)}: images must be of one shape"
        )
    largest = (num_classes or _MAX_CLASSES) - 1
    y_train = _numbers(path, "y_train", there["y_train"], len(x_train), largest)
    y_test = _numbers(path, "y_test", there["y_test"], len(x_test), largest)
    writers = {
        name: None if name not in there else _numbers(path, name, there[name], size, 2**31 - 1)
        for name, size in (("writer_train", len(x_train)), ("writer_test", len(x_test)))
    }
    classes = num_classes or int(max(y_train.max(), y_test.max())) + 1
    return Arrays(x_train, y_train, x_test, y_test, classes, **writers)


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    wanted = set(Arrays._fields)
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise UserError(f"{path}: a single array, expected a .npz file with x_train, y_train, x_test, y_test")
        with file:
            return {name: file[name] for name in file.files if name in wanted}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError, NotImplementedError) as e:
        detail = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise UserError(
            f"{path}: damaged, or not a .npz file of plain arrays ({detail}); make or fetch it again"
        ) from e


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _images(path: pathlib.Path | str, name: str, x: np.ndarray) -> np.ndarray:
    if x.dtype != np.uint8:
        raise UserError(f"{path}: {name} is {x.dtype}, expected uint8 pixels in 0..255")
    if x.ndim not in (3, 4) or 0 in x.shape:
        raise UserError(f"{path}: {name} is {_shape(x.shape)}, expected [N, H, W] or [N, H, W, C], not empty")
    return x if x.ndim == 4 else x[..., None]


def _numbers(path: pathlib.Path | str, name: str, values: np.ndarray, size: int, largest: int) -> np.ndarray:
    if values.shape != (size,) or not np.issubdtype(values.dtype, np.integer):
        raise UserError(f"{path}: {name} is {values.dtype} {_shape(values.shape)}, expected whole numbers [{size}]")
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > largest:
        raise UserError(f"{path}: {name} holds {low if low < 0 else high}, allowed are 0..{largest}")
    return values.astype(np.int32)

"""Reads a data set from a `.npz` file, without running code that the file might contain (no pickles)."""

from __future__ import annotations

import pathlib
import zipfile
import zlib

import numpy as np

from prfl_jax.data.check import OPTIONAL, Arrays, checked_arrays
from prfl_jax.system.errors import UserError
from prfl_jax.tasks import SampleKind


def read_npz(path: pathlib.Path, num_classes: int | None = None, only: SampleKind | None = None) -> Arrays:
    """Read and check `x_train`, `y_train`, `x_test`, `y_test` and what else `checked_arrays` takes.

    Args:
        path: an existing file with these arrays.
        num_classes: what the labels must be below; None: the largest label + 1.
        only: the kind that the samples must be of; None: any.

    Raises:
        UserError: the file is damaged or an array is missing or not as described.
    """
    return checked_arrays(path, _read(path), num_classes, only=only)


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    wanted = {*Arrays._fields, *OPTIONAL} - {"num_classes", "notes"}
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise UserError(f"{path}: a single array, expected a .npz file with x_train, y_train, x_test, y_test")
        with file:
            return {name: file[name] for name in file.files if name in wanted}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError, NotImplementedError) as e:
        detail = str(e).splitlines()[0] if str(e) else type(e).__name__
        if "Object arrays" in detail:
            raise UserError(
                f"{path}: not a .npz file of plain arrays: one holds objects of Python, as ragged arrays do; put "
                "padding (nan, or -1 for tokens) behind shorter samples"
            ) from e
        raise UserError(
            f"{path}: damaged, or not a .npz file of plain arrays ({detail}); make or fetch it again"
        ) from e

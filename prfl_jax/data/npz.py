"""Reading a data set from a `.npz` file without trusting it."""

from __future__ import annotations

import pathlib
import zipfile
import zlib

import numpy as np

from prfl_jax.errors import UserError

_MAX_CLASSES = 10_000  # a larger label is a mistake, not a data set


def read_npz(path: pathlib.Path, num_classes: int | None = None) -> tuple[dict[str, np.ndarray | None], int]:
    """Read and check `x_train`, `y_train`, `x_test`, `y_test` and, if there, `writer_train`.

    Args:
        path: an existing file. Images are uint8 `[N, H, W]` or `[N, H, W, C]`,
            labels and writers whole numbers `[N]`, none negative.
        num_classes: what the labels must be below; None: the largest label + 1.

    Returns:
        The five arrays by name as `Dataset` wants them (`[N, H, W, C]` uint8, int32;
        `writer_train` may be None), and the number of classes.

    Raises:
        UserError: the file is damaged or an array is missing or not as described.
    """
    arrays = _read(path)
    out: dict[str, np.ndarray | None] = {"writer_train": None}
    for part in ("train", "test"):
        x, y = _array(path, arrays, f"x_{part}"), _array(path, arrays, f"y_{part}")
        out[f"x_{part}"] = _images(path, f"x_{part}", x)
        out[f"y_{part}"] = _numbers(path, f"y_{part}", y, len(x), (num_classes or _MAX_CLASSES) - 1)
    x_train, x_test = out["x_train"], out["x_test"]
    assert x_train is not None and x_test is not None
    if x_train.shape[1:] != x_test.shape[1:]:
        raise UserError(
            f"{path}: x_train is {_shape(x_train.shape)} and x_test {_shape(x_test.shape)}: images must be of one shape"
        )
    if "writer_train" in arrays:
        out["writer_train"] = _numbers(path, "writer_train", arrays["writer_train"], len(x_train), 2**31 - 1)
    largest = max(int(np.max(out[f"y_{part}"])) for part in ("train", "test"))  # type: ignore[type-var]
    return out, num_classes or largest + 1


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    wanted = {"x_train", "y_train", "x_test", "y_test", "writer_train"}
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise UserError(f"{path}: a single array, expected a .npz file with x_train, y_train, x_test, y_test")
            return {name: file[name] for name in file.files if name in wanted}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError, NotImplementedError) as e:
        detail = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise UserError(f"{path}: damaged, or not a .npz file of plain arrays ({detail}); make or fetch it again") from e


def _array(path: pathlib.Path, arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    if name not in arrays:
        raise UserError(f"{path}: no array {name}; expected x_train, y_train, x_test, y_test")
    return arrays[name]


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _images(path: pathlib.Path, name: str, x: np.ndarray) -> np.ndarray:
    if x.dtype != np.uint8:
        raise UserError(f"{path}: {name} is {x.dtype}, expected uint8 pixels in 0..255")
    if x.ndim not in (3, 4) or 0 in x.shape:
        raise UserError(f"{path}: {name} is {_shape(x.shape)}, expected [N, H, W] or [N, H, W, C], not empty")
    return x if x.ndim == 4 else x[..., None]


def _numbers(path: pathlib.Path, name: str, values: np.ndarray, size: int, largest: int) -> np.ndarray:
    if values.shape != (size,) or not np.issubdtype(values.dtype, np.integer):
        raise UserError(f"{path}: {name} is {values.dtype} {_shape(values.shape)}, expected whole numbers [{size}]")
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > largest:
        raise UserError(f"{path}: {name} holds {low if low < 0 else high}, allowed are 0..{largest}")
    return values.astype(np.int32)

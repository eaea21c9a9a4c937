"""Checks a data set from any source: types and shapes of images, range of labels, sizes of the splits."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from prfl_jax.data.plausibility import looks_strange
from prfl_jax.system.errors import UserError

UNLABELLED = -1  # how tensorflow-datasets marks an image without a label
PARTS = {"train": "training", "test": "test"}  # of an array's name, and in words
_MAX_CLASSES = 10_000  # a larger label is a mistake, not a data set; more must be asked for by `num_classes`
_MOST_CLASSES = 1_000_000

Where = pathlib.Path | str


class Arrays(NamedTuple):
    """The arrays of a `Dataset`, in its types and shapes, its number of classes, and what looks strange in them."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    num_classes: int
    writer_train: np.ndarray | None
    writer_test: np.ndarray | None
    notes: tuple[str, ...] = ()


def checked_arrays(
    where: Where, found: Mapping[str, Any], num_classes: int | None, unlabelled: int | None = None
) -> Arrays:
    """Arrays of a data set in the types and shapes of `Dataset`; what only looks strange is noted.

    Args:
        where: a file, or as an error's text begins.
        found: `x_train`, `y_train`, `x_test`, `y_test` and, if there, `writer_train` and `writer_test`. Images are
            uint8 `[N, H, W]` or `[N, H, W, C]`, training and test images of one shape; labels and writers whole
            numbers `[N]`, none negative.
        num_classes: what the labels must be below; None: the largest label + 1.
        unlabelled: the label of an image that has none; such images are left out, and counted in `notes`. None: there
            is no such label.

    Raises:
        UserError: an array is missing (or None) or not as described, or no image of a part has a label.
    """
    there = {name: _array(where, name, value) for name, value in found.items() if value is not None}
    for name in ("x_train", "y_train", "x_test", "y_test"):
        if name not in there:
            raise UserError(f"{where}: no array {name}; expected x_train, y_train, x_test, y_test")
    largest = _largest_label(where, num_classes)
    notes: list[str] = []
    for part in PARTS:
        there[f"x_{part}"] = checked_images(where, f"x_{part}", there[f"x_{part}"])
        said = _without_unlabelled(where, part, there, unlabelled)
        notes += said
        size = len(there[f"x_{part}"])
        there[f"y_{part}"] = _numbers(where, f"y_{part}", there[f"y_{part}"], size, largest)
        if f"writer_{part}" in there:
            there[f"writer_{part}"] = _numbers(where, f"writer_{part}", there[f"writer_{part}"], size, 2**31 - 1)
    train, test = there["x_train"].shape, there["x_test"].shape
    if train[1:] != test[1:]:
        raise UserError(f"{where}: x_train is {_shape(train)} and x_test {_shape(test)}: images must be of one shape")
    y_train, y_test = there["y_train"], there["y_test"]
    classes = int(num_classes or max(y_train.max(), y_test.max()) + 1)
    notes += looks_strange(there["x_train"], y_train, there["x_test"], y_test, classes)
    writers = there.get("writer_train"), there.get("writer_test")
    return Arrays(there["x_train"], y_train, there["x_test"], y_test, classes, *writers, tuple(notes))


def checked_images(where: Where, name: str, x: np.ndarray) -> np.ndarray:
    """Images as uint8 `[N, H, W, C]`; grey ones are given their channel axis.

    Raises:
        UserError: they are not uint8, or not of that shape.
    """
    if x.dtype != np.uint8:
        raise UserError(f"{where}: {name} is {x.dtype}, expected uint8 pixels in 0..255{_to_bytes(x)}")
    if x.ndim not in (3, 4) or 0 in x.shape:
        raise UserError(f"{where}: {name} is {_shape(x.shape)}, expected [N, H, W] or [N, H, W, C], not empty")
    return x if x.ndim == 4 else x[..., None]


def _array(where: Where, name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except Exception as e:  # whatever a user's array type raises
        array = np.empty(0, object)
        said = (str(e).strip().splitlines() or [type(e).__name__])[0][:100]
    else:
        said = "its entries are objects of Python"
    if array.dtype != object:
        return array
    try:
        shapes = sorted({np.shape(entry) for entry in value})
    except Exception:
        shapes = []
    if len(shapes) > 1:
        some = " and ".join(_shape(shape) for shape in shapes[:2])
        raise UserError(f"{where}: {name} holds {len(shapes)} shapes, {some}: images must be of one shape, labels [N]")
    raise UserError(f"{where}: {name} is no array of numbers ({said}); expected numpy arrays")


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _largest_label(where: Where, num_classes: Any) -> int:
    if num_classes is None:
        return _MAX_CLASSES - 1
    whole = isinstance(num_classes, int | np.integer) and not isinstance(num_classes, bool)
    if not whole or not 1 <= num_classes <= _MOST_CLASSES:
        raise UserError(
            f"{where}: num_classes is {str(num_classes)[:40]!r}, allowed is a whole number from 1 to {_MOST_CLASSES}, "
            "or None"
        )
    return int(num_classes) - 1


def _to_bytes(x: np.ndarray) -> str:
    """What to do with images that are not bytes."""
    if x.dtype == bool:
        return "; multiply: x.astype(np.uint8) * 255"
    if not x.size or not np.issubdtype(x.dtype, np.number) or np.iscomplexobj(x):
        return ""
    if not np.isfinite(x).all():
        return f"; it holds {x[~np.isfinite(x)][0]}"
    low, high = x.min(), x.max()
    if low < 0 or high > 255:
        return f"; it holds {low:g} to {high:g}: scale that to 0..255, round, astype(np.uint8)"
    if np.issubdtype(x.dtype, np.floating) and high <= 1:
        return f"; it holds {low:g} to {high:g}: np.rint(255 * x).astype(np.uint8)"
    return f"; it holds {low:g} to {high:g}: np.rint(x).astype(np.uint8)"


def _without_unlabelled(where: Where, part: str, there: dict[str, np.ndarray], mark: int | None) -> list[str]:
    """Leaves images without a label out of the arrays of one part; says how many there were.

    Raises:
        UserError: no image is left.
    """
    labels = there[f"y_{part}"]
    if mark is None or labels.shape != there[f"x_{part}"].shape[:1]:
        return []
    count = int(np.count_nonzero(labels == mark))
    if not count:
        return []
    if count == len(labels):
        what = "nothing can be scored" if part == "test" else "nothing can be trained on"
        raise UserError(
            f"{where}: none of its {count:,} {PARTS[part]} images has a label (all are {mark}), so {what}; write its "
            "labelled images to a .npz file, a part of them as x_test and y_test, and name that"
        )
    for name in ("x", "writer", "y"):
        if f"{name}_{part}" in there:
            there[f"{name}_{part}"] = there[f"{name}_{part}"][labels != mark]
    return [f"{count:,} of {len(labels):,} {PARTS[part]} images have no label ({mark}) and are left out"]


def _numbers(where: Where, name: str, values: np.ndarray, size: int, largest: int) -> np.ndarray:
    if values.shape != (size,) or not np.issubdtype(values.dtype, np.integer):
        raise UserError(
            f"{where}: {name} is {values.dtype} {_shape(values.shape)}, expected whole numbers [{size}]"
            f"{_to_numbers(values, size)}"
        )
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > largest:
        advice = ""
        if low < 0:
            count = int(np.count_nonzero(values < 0))
            advice = f"; leave out what has none ({count:,} of {size:,} are negative), or number them from 0"
        elif low > 0 and high - low <= largest:
            advice = f"; they begin at {low}: subtract that"
        raise UserError(f"{where}: {name} holds {low if low < 0 else high}, allowed are 0..{largest}{advice}")
    return values.astype(np.int32)


def _to_numbers(values: np.ndarray, size: int) -> str:
    """What to do with labels or writers that are not whole numbers `[size]`."""
    if values.shape == (size, 1):
        return "; drop its second axis: values[:, 0]"
    if values.ndim == 2 and len(values) == size:
        return "; where each row marks one class: values.argmax(axis=1)"
    if values.shape != (size,):
        return ", one for each image; images are counted along their first axis"
    if values.dtype == bool:
        return "; convert it: values.astype(np.int32)"
    if not np.issubdtype(values.dtype, np.floating):
        return "; number what they name from 0: np.unique(values, return_inverse=True)[1]"
    odd = values[~(np.isfinite(values) & (values == np.rint(values)))]
    return (
        f"; {len(odd):,} of them are no whole numbers, as {odd[0]:g}"
        if len(odd)
        else ("; convert it: values.astype(np.int32)")
    )

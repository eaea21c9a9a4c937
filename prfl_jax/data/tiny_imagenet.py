"""Prepares Tiny-ImageNet: 200 classes of ImageNet with 500 training and 50 test images each, 64 x 64 pixels."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from prfl_jax.data.prepare import new_file, write_npz
from prfl_jax.system.errors import UserError

CLASSES, SIDE = 200, 64
_ANNOTATIONS = "val/val_annotations.txt"


def prepare_tiny_imagenet(folder: pathlib.Path, data_dir: pathlib.Path, force: bool = False) -> pathlib.Path:
    """Turn the folder `tiny-imagenet-200` (CS231N, Stanford) into `tiny_imagenet.npz`.

    Its validation images are the test images, because those of its part `test` have no labels.

    Args:
        folder: holds `wnids.txt`, `train/WNID/images/*.JPEG`, `val/val_annotations.txt` and `val/images/*.JPEG`; or the
            folder above it.
        data_dir: where the result goes.
        force: replace an existing result.

    Returns:
        The file: `x_*` `[N, 64, 64, 3]` uint8, grey images as three equal channels, and `y_*` uint8, the position of
        the class in `wnids.txt`.

    Raises:
        UserError: a file or a class is missing, or an image is damaged or of another size; the message names it.
    """
    out = new_file(data_dir / "tiny_imagenet.npz", force)
    if not (folder / "wnids.txt").is_file() and (folder / "tiny-imagenet-200").is_dir():
        folder = folder / "tiny-imagenet-200"
    classes = _lines(folder / "wnids.txt")
    if not 2 <= len(classes) <= CLASSES or len(set(classes)) < len(classes):
        raise UserError(f"{folder / 'wnids.txt'}: {len(classes)} lines; allowed: 2 to {CLASSES} different classes")
    train: list[tuple[pathlib.Path, int]] = []
    for label, wnid in enumerate(classes):
        images = sorted((folder / "train" / wnid / "images").glob("*.JPEG"))
        if not images:
            raise UserError(f"{folder}: no file train/{wnid}/images/*.JPEG")
        train += [(path, label) for path in images]
    parts = {"train": train, "test": _annotated(folder, classes)}
    arrays: dict[str, np.ndarray] = {}
    for part, listed in parts.items():
        arrays[f"x_{part}"] = _pixels([path for path, _ in listed])
        arrays[f"y_{part}"] = np.array([label for _, label in listed], np.uint8)
    return write_npz(out, arrays, len(classes))


def _annotated(folder: pathlib.Path, classes: Sequence[str]) -> list[tuple[pathlib.Path, int]]:
    """(file, label) of each validation image, as `val_annotations.txt` lists them: name, class, and its box."""
    number = {wnid: label for label, wnid in enumerate(classes)}
    found = []
    for at, line in enumerate(_lines(folder / _ANNOTATIONS), 1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in number:
            raise UserError(f"{folder / _ANNOTATIONS}, line {at}: class {wnid[:40]!r}; allowed: those of wnids.txt")
        found.append((folder / "val" / "images" / name, number[wnid]))
    if not found:
        raise UserError(f"{folder / _ANNOTATIONS}: no image is listed")
    return found


def _lines(path: pathlib.Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; needed is the folder tiny-imagenet-200") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: no text in UTF-8; fetch it again") from None


def _pixels(paths: Sequence[pathlib.Path]) -> np.ndarray:
    """`[N, 64, 64, 3]` uint8."""
    from PIL import Image, UnidentifiedImageError

    pixels = np.empty((len(paths), SIDE, SIDE, 3), np.uint8)
    for row, path in zip(pixels, paths, strict=True):
        try:
            with Image.open(path) as image:
                if image.size != (SIDE, SIDE):
                    size = " x ".join(map(str, image.size))
                    raise UserError(f"{path}: {size} pixels; allowed: {SIDE} x {SIDE}")
                row[:] = np.asarray(image.convert("RGB"))
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:  # SyntaxError: of damaged headers
            raise UserError(f"{path}: no image that can be read ({type(error).__name__}); fetch it again") from None
    return pixels

"""Prepares EMNIST, the split "by class": handwritten digits and letters in 62 classes, from NIST's idx files."""

from __future__ import annotations

import pathlib

import numpy as np

from prfl_jax.data.prepare import check_labelled, new_file, read_idx, write_npz

CLASSES = 62
EMNIST_FILES = {
    f"{array}_{part}": f"emnist-byclass-{part}-{kind}"
    for part in ("train", "test")
    for array, kind in (("x", "images-idx3-ubyte"), ("y", "labels-idx1-ubyte"))
}


def prepare_emnist(emnist_dir: pathlib.Path, data_dir: pathlib.Path, force: bool = False) -> pathlib.Path:
    """Turn EMNIST's files of the split "by class" (Cohen et al. 2017) into `emnist.npz`.

    Args:
        emnist_dir: holds the four files of `EMNIST_FILES`, gzipped (`.gz`) or not, as in the folder `gzip` of NIST's
            archive.
        data_dir: where the result goes.
        force: replace an existing result.

    Returns:
        The file: `x_*` `[N, 28, 28]` uint8, upright (NIST stores them with rows and columns exchanged), and `y_*`
        uint8: 0 to 9 digits, 10 to 35 capital letters, 36 to 61 small ones.

    Raises:
        UserError: a file is missing or damaged, or the numbers of images and labels differ.
    """
    out = new_file(data_dir / "emnist.npz", force)
    arrays = {name: read_idx(emnist_dir, file) for name, file in EMNIST_FILES.items()}
    for part in ("train", "test"):
        x = arrays[f"x_{part}"]
        check_labelled(f"{emnist_dir}: EMNIST's {part}", x, arrays[f"y_{part}"])
        arrays[f"x_{part}"] = np.ascontiguousarray(x.transpose(0, 2, 1))
    return write_npz(out, arrays, CLASSES)

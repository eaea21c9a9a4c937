"""Prepares data sets (MNIST by writer, CIFAR-10, FEMNIST) from the files that their authors publish."""

from __future__ import annotations

import gzip
import os
import pathlib
import shutil
import tarfile
import tempfile
import zlib

import numpy as np

from prfl_jax.data.check import Arrays, checked_arrays, noun_of
from prfl_jax.data.leaf import parts
from prfl_jax.system.errors import UserError
from prfl_jax.system.files import replacing
from prfl_jax.system.notices import note_once, warn_once
from prfl_jax.tasks import IMAGES, SampleKind

MNIST_FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
QMNIST_FILES = {"train": "qmnist-train-labels-idx2-int", "test": "qmnist-test-labels-idx2-int"}
CIFAR10_FILES = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
_CIFAR10_FOLDER = "cifar-10-batches-bin"
_CIFAR10_RECORD = 1 + 3 * 32 * 32  # label, then the red, green and blue plane
_IDX_TYPES: dict[int, np.dtype] = {0x08: np.dtype(np.uint8), 0x0C: np.dtype(">i4")}
_QMNIST_CLASS, _QMNIST_SERIES, _QMNIST_WRITER = 0, 1, 2  # columns of QMNIST's label rows


def prepare_mnist_by_writer(
    mnist_dir: pathlib.Path, qmnist_dir: pathlib.Path, data_dir: pathlib.Path, force: bool = False
) -> pathlib.Path:
    """Join MNIST's images with QMNIST's writers into `mnist_by_writer.npz`.

    Args:
        mnist_dir: holds the four files of `MNIST_FILES`, gzipped (`.gz`) or not, as
            published with MNIST (LeCun, Cortes, Burges; CC BY-SA 3.0).
        qmnist_dir: holds the two label files of `QMNIST_FILES`, likewise, as published
            in the QMNIST repository (Yadav and Bottou 2019; BSD).
        data_dir: where the result goes.
        force: replace an existing result.

    Returns:
        The file: `x_*` `[N, 28, 28]` uint8, `y_*` uint8, `writer_*` int16, `hsf_*` uint8
        (NIST's series) for train and test.

    Raises:
        UserError: a file is missing or damaged, counts differ, or QMNIST's classes are
            not MNIST's labels; the message names the file.
    """
    out = new_file(data_dir / "mnist_by_writer.npz", force)
    mnist = {name: read_idx(mnist_dir, file) for name, file in MNIST_FILES.items()}
    arrays: dict[str, np.ndarray] = {}
    for part, file in QMNIST_FILES.items():
        x, y, rows = mnist[f"x_{part}"], mnist[f"y_{part}"], read_idx(qmnist_dir, file)
        check_labelled(f"{mnist_dir}: MNIST's {part}", x, y)
        if rows.ndim != 2 or rows.shape[1] < 3 or len(rows) < len(y):
            raise UserError(f"{qmnist_dir / file}: {rows.shape}, expected at least ({len(y)}, 8)")
        rows = rows[: len(y)]  # QMNIST's test set begins with MNIST's, followed by others
        differ = np.count_nonzero(rows[:, _QMNIST_CLASS] != y)
        if differ:
            raise UserError(f"{qmnist_dir / file}: {differ} of {len(y)} classes are not MNIST's {part} labels")
        arrays |= {
            f"x_{part}": x,
            f"y_{part}": y,
            f"writer_{part}": rows[:, _QMNIST_WRITER].astype(np.int16),
            f"hsf_{part}": rows[:, _QMNIST_SERIES].astype(np.uint8),
        }
    return write_npz(out, arrays, 10)


def prepare_cifar10(cifar_dir: pathlib.Path, data_dir: pathlib.Path, force: bool = False) -> pathlib.Path:
    """Turn CIFAR-10's binary version into `cifar10.npz`.

    Args:
        cifar_dir: the folder of `CIFAR10_FILES` (or the one above it), or the archive
            `cifar-10-binary.tar.gz` of CIFAR-10's page (Krizhevsky 2009).
        data_dir: where the result goes.
        force: replace an existing result.

    Returns:
        The file: `x_*` `[N, 32, 32, 3]` uint8 and `y_*` uint8, in the files' order.

    Raises:
        UserError: a file is missing, is not whole records, or has a label above 9.
    """
    out = new_file(data_dir / "cifar10.npz", force)
    arrays: dict[str, np.ndarray] = {}
    for part, files in CIFAR10_FILES.items():
        raw = [_cifar10_bytes(cifar_dir, file) for file in files]
        for file, content in zip(files, raw, strict=True):
            if not content or len(content) % _CIFAR10_RECORD:
                raise UserError(f"{cifar_dir}: {file} has {len(content)} bytes, not records of {_CIFAR10_RECORD}")
        records = np.frombuffer(b"".join(raw), np.uint8).reshape(-1, _CIFAR10_RECORD)
        if records[:, 0].max() > 9:
            raise UserError(f"{cifar_dir}: {part} has label {records[:, 0].max()}, allowed are 0..9")
        arrays[f"x_{part}"] = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        arrays[f"y_{part}"] = records[:, 0]
    return write_npz(out, arrays, 10)


def prepare_femnist(leaf_dir: pathlib.Path, data_dir: pathlib.Path, force: bool = False) -> pathlib.Path:
    """Prepare FEMNIST from LEAF's JSON folder with tensorflow-datasets, without TensorFlow.

    Args:
        leaf_dir: holds `train/*.json` and `test/*.json` (or undivided `*.json`), as
            LEAF's FEMNIST preprocessing writes them.
        data_dir: the data folder; the result goes to `femnist/` in it.
        force: replace an existing result.

    Returns:
        The folder.

    Raises:
        UserError: the JSON files are missing or not LEAF's, or hold no image for a split.
    """
    from prfl_jax.data.prepared import missing_package, read_femnist, tensorflow_datasets

    target = data_dir / "femnist"
    new_file(target, force)
    tfds = tensorflow_datasets("--what=femnist")
    from prfl_jax.data.femnist import Femnist

    parts(leaf_dir)  # complain before anything is moved
    with tempfile.TemporaryDirectory(prefix=".femnist-", dir=data_dir) as scratch:
        builder = Femnist(data_dir=scratch, file_format="array_record")
        try:
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(leaf_dir)))
        except UserError:
            raise
        except Exception as e:  # whatever it raises, in a line
            package = missing_package(e)
            said = f"it needs {package}; run: pip install {package}" if package else f"{type(e).__name__}: {e}"
            raise UserError(f"{leaf_dir}: cannot be prepared ({' '.join(said.split())[:300]})") from e
        _tell(target, read_femnist(pathlib.Path(scratch)))  # as a run will read it
        if target.exists():
            shutil.rmtree(target)
        os.replace(pathlib.Path(scratch) / "femnist", target)
    parts_of: dict[str, list[str]] = {}
    for part, found in builder.found.items():
        for line in found.lines():
            parts_of.setdefault(line, []).append(part)
    for line, where in parts_of.items():
        note_once(f"{leaf_dir}, {' and '.join(where)}: {line}")
    return target


def new_file(path: pathlib.Path, force: bool) -> pathlib.Path:
    """The path of a result, whose folder is made.

    Raises:
        UserError: there is one already and `force` is false, or the folder cannot be written to.
    """
    if path.exists() and not force:
        raise UserError(f"{path} is there already; --force replaces it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"--data_dir={path.parent}: {e.strerror}; allowed is a folder that can be written to") from e
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"--data_dir={path.parent}: allowed is a folder that can be written to")
    return path


def _tell(path: pathlib.Path, arrays: Arrays) -> None:
    train, test = len(arrays.y_train), len(arrays.y_test)
    writers = "" if arrays.writer_train is None else f", {len(np.unique(arrays.writer_train)):,} training writers"
    note_once(
        f"{path}: {train:,} training and {test:,} test {noun_of(arrays.x_train)}, {arrays.num_classes} classes{writers}"
    )
    for note in arrays.notes:
        warn_once(f"{path}: {note}")


def write_npz(
    path: pathlib.Path, arrays: dict[str, np.ndarray], num_classes: int, only: SampleKind = IMAGES
) -> pathlib.Path:
    """Checks arrays as a run will, and writes them.

    Raises:
        UserError: samples are of another kind than `only`, or a run would refuse them.
    """
    _tell(path, checked_arrays(path, arrays, num_classes, only=only))
    with replacing(path) as part, open(part, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    return path


def check_labelled(what: str, x: np.ndarray, y: np.ndarray) -> None:
    """Raises UserError where `x` is no `[N, H, W]` or `y` no `[N]`; `what` begins the text."""
    if x.ndim != 3 or y.shape != x.shape[:1]:
        raise UserError(f"{what} images are {x.shape}, its labels {y.shape}")


def read_idx(folder: pathlib.Path, name: str) -> np.ndarray:
    """An idx file: 0, 0, type, rank, the sizes as big-endian int32, then the values."""
    # Both the hyphen and a dot before idx are about.
    names = (name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz")
    path = next((folder / n for n in names if (folder / n).is_file()), None)
    if path is None:
        raise UserError(f"{folder}: no file {name} or {name}.gz")
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as e:
        raise UserError(f"{path}: damaged ({e}); fetch it again") from e
    dtype = _IDX_TYPES.get(raw[2]) if len(raw) >= 4 and raw[:2] == b"\0\0" else None
    if dtype is None or len(raw) < 4 + 4 * raw[3]:
        raise UserError(f"{path}: not an idx file of bytes or 32-bit integers")
    shape = tuple(int(n) for n in np.frombuffer(raw, ">i4", raw[3], 4))
    body = raw[4 + 4 * raw[3] :]
    if len(body) != int(np.prod(shape)) * dtype.itemsize:
        raise UserError(f"{path}: {len(body)} bytes of values, its header announces {shape}; fetch it again")
    return np.frombuffer(body, dtype).reshape(shape)


def _cifar10_bytes(source: pathlib.Path, file: str) -> bytes:
    if source.is_dir():
        for path in (source / file, source / _CIFAR10_FOLDER / file):
            if path.is_file():
                return path.read_bytes()
        raise UserError(f"{source}: no file {file}; needed are {', '.join(sum(CIFAR10_FILES.values(), []))}")
    if not source.is_file():
        raise UserError(f"{source}: no such folder or archive")
    try:
        with tarfile.open(source) as archive:
            member = archive.extractfile(f"{_CIFAR10_FOLDER}/{file}")
            return member.read() if member else b""
    except (tarfile.TarError, KeyError, OSError, EOFError, zlib.error) as e:
        raise UserError(f"{source}: cannot read {_CIFAR10_FOLDER}/{file} from it ({e})") from e

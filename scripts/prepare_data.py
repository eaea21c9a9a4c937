"""Prepares a data set for `--config.data.name=...` from the files that its authors publish.

    python scripts/prepare_data.py --what=mnist_by_writer --mnist_dir=FOLDER [--qmnist_dir=FOLDER]
    python scripts/prepare_data.py --what=cifar10 --cifar_dir=FOLDER_OR_ARCHIVE
    python scripts/prepare_data.py --what=femnist --leaf_dir=FOLDER
    python scripts/prepare_data.py --what=emnist --emnist_dir=FOLDER
    python scripts/prepare_data.py --what=tiny_imagenet --tiny_imagenet_dir=FOLDER
    python scripts/prepare_data.py --what=spoken_digits

mnist_by_writer needs MNIST's four files train-images-idx3-ubyte, train-labels-idx1-ubyte,
t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte (from the MNIST page of LeCun, Cortes and
Burges or one of its mirrors) and QMNIST's qmnist-train-labels-idx2-int and
qmnist-test-labels-idx2-int (from Facebook Research's repository qmnist on GitHub), each
with or without .gz. cifar10 needs the binary version, cifar-10-binary.tar.gz from the
CIFAR page of the University of Toronto, or the folder unpacked from it. femnist needs the
JSON files that the FEMNIST preprocessing of LEAF (the repository TalwalkarLab/leaf on
GitHub) writes. emnist needs the four files emnist-byclass-* of NIST's archive of EMNIST in
the idx format, with or without .gz. tiny_imagenet needs the folder tiny-imagenet-200 of
Stanford's course CS231N. spoken_digits needs the command espeak-ng (Debian's package of that name) and
the extra `audio`: twelve voices say the digits, which become log-mel frames. Nothing is
downloaded.
"""

from __future__ import annotations

import prfl_jax.system.early  # noqa: F401  # isort: skip  (before what takes long)

import os
import pathlib

from absl import flags

from prfl_jax.config import cli
from prfl_jax.data import prepare, spoken_digits
from prfl_jax.data.dataset import DATA_DIR_VARIABLE
from prfl_jax.data.emnist import prepare_emnist
from prfl_jax.data.tiny_imagenet import prepare_tiny_imagenet
from prfl_jax.system.errors import UserError
from prfl_jax.system.files import user_path

_DATA_DIR = flags.DEFINE_string("data_dir", None, f"Output folder; by default ${DATA_DIR_VARIABLE}, else ~/prfl_data.")
_MNIST_DIR = flags.DEFINE_string("mnist_dir", None, "mnist_by_writer: folder of MNIST's four idx files.")
_QMNIST_DIR = flags.DEFINE_string("qmnist_dir", None, "mnist_by_writer: QMNIST's folder; by default mnist_dir.")
_CIFAR_DIR = flags.DEFINE_string("cifar_dir", None, "cifar10: folder of the .bin files, or the archive.")
_LEAF_DIR = flags.DEFINE_string("leaf_dir", None, "femnist: LEAF's folder with train/*.json and test/*.json.")
_EMNIST_DIR = flags.DEFINE_string("emnist_dir", None, "emnist: folder of the four files emnist-byclass-*.")
_TINY_IMAGENET_DIR = flags.DEFINE_string("tiny_imagenet_dir", None, "tiny_imagenet: the folder tiny-imagenet-200.")
_FORCE = flags.DEFINE_bool("force", False, "Replace existing files.")


def _path(flag: flags.FlagHolder[str | None]) -> pathlib.Path:
    if not flag.value:
        raise UserError(f"--what={_WHAT.value} needs --{flag.name}=FOLDER")
    path = user_path(f"--{flag.name}", flag.value)
    if not path.exists():
        raise UserError(f"--{flag.name}={flag.value}: no such folder")
    return path


def _mnist_by_writer(data_dir: pathlib.Path) -> pathlib.Path:
    mnist_dir = _path(_MNIST_DIR)
    qmnist_dir = _path(_QMNIST_DIR) if _QMNIST_DIR.value else mnist_dir
    return prepare.prepare_mnist_by_writer(mnist_dir, qmnist_dir, data_dir, _FORCE.value)


def _cifar10(data_dir: pathlib.Path) -> pathlib.Path:
    return prepare.prepare_cifar10(_path(_CIFAR_DIR), data_dir, _FORCE.value)


def _femnist(data_dir: pathlib.Path) -> pathlib.Path:
    return prepare.prepare_femnist(_path(_LEAF_DIR), data_dir, _FORCE.value)


def _emnist(data_dir: pathlib.Path) -> pathlib.Path:
    return prepare_emnist(_path(_EMNIST_DIR), data_dir, _FORCE.value)


def _tiny_imagenet(data_dir: pathlib.Path) -> pathlib.Path:
    return prepare_tiny_imagenet(_path(_TINY_IMAGENET_DIR), data_dir, _FORCE.value)


def _spoken_digits(data_dir: pathlib.Path) -> pathlib.Path:
    return spoken_digits.prepare_spoken_digits(data_dir, _FORCE.value)


# by --what
MAKERS = {
    "mnist_by_writer": _mnist_by_writer,
    "cifar10": _cifar10,
    "femnist": _femnist,
    "emnist": _emnist,
    "tiny_imagenet": _tiny_imagenet,
    "spoken_digits": _spoken_digits,
}
_WHAT = flags.DEFINE_enum("what", None, list(MAKERS), "What to make.", required=True)


def main() -> None:
    data_dir = user_path("--data_dir", _DATA_DIR.value or os.environ.get(DATA_DIR_VARIABLE) or "~/prfl_data")
    print(MAKERS[_WHAT.value](data_dir))


if __name__ == "__main__":
    cli.run(main)

"""`Dataset`: samples in memory, their labels or targets, and who made them; the folder that data sets lie in."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from typing import Any

import numpy as np

from prfl_jax.data.check import Arrays
from prfl_jax.tasks import IMAGES, SampleKind, SampleSpec, kind_of
from prfl_jax.tasks.sample import sample_lengths

DATA_DIR_VARIABLE = "PRFL_DATA_DIR"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Samples in memory: images as bytes, series and other numbers, or sequences of tokens (`tasks/sample.py`).

    Attributes:
        name: `data.name` of the config (whatever a plugin says).
        x_train: `[N, H, W, C]` uint8, `[N, T, ...]` float32 or `[N, T]` int32 tokens, with padding behind short ones.
        y_train: `[N]` int32, in `0 .. num_classes - 1`; of sequences also `[N, T]`, `PADDING` where there is none.
        x_test: `[M, ...]`, likewise.
        y_test: `[M]` or `[M, T]` int32.
        num_classes: how many labels there are.
        writer_train: `[N]` int32, who wrote (spoke, made) each training sample; None where it is not known.
        writer_test: `[M]` int32, likewise for the test samples.
        source: one line for the report.
        notes: what a user should know or look at again, a line each; `load` fills it in.
        tokens: how many different tokens there are; None of a plugin: the largest one + 1. 0 where there are none.
        length_train, length_test: `[N]` steps of each sample, for `load` to put padding behind them.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    num_classes: int
    writer_train: np.ndarray | None = None
    writer_test: np.ndarray | None = None
    source: str = ""
    notes: tuple[str, ...] = ()
    tokens: int | None = None
    length_train: np.ndarray | None = None
    length_test: np.ndarray | None = None

    @property
    def kind(self) -> SampleKind:
        """The kind of the samples."""
        kind = kind_of(self.x_train.dtype)
        assert kind is not None
        return kind

    @functools.cached_property
    def sample(self) -> SampleSpec:
        """What a model is given of one sample."""
        kind = self.kind
        padded = kind is not IMAGES and any(
            (sample_lengths(x) < x.shape[1]).any() for x in (self.x_train, self.x_test) if x.ndim > 1
        )
        return SampleSpec(self.x_train.shape[1:], kind, self.tokens or 0, padded)

    @property
    def sequence(self) -> bool:
        """Whether each step of a sample has a target."""
        return self.y_train.ndim == 2

    def labels(self, rows: np.ndarray) -> np.ndarray:
        """How often each label is a target of the training samples `rows` `[n]`: `[num_classes]` counts."""
        y = self.y_train[rows].reshape(-1)
        return np.bincount(y[y >= 0], minlength=self.num_classes)


def data_dir(data_cfg: Any) -> pathlib.Path:
    """The data folder: `data.dir`, else the environment variable, else `~/prfl_data`."""
    folder = data_cfg.dir or os.environ.get(DATA_DIR_VARIABLE) or "~/prfl_data"
    return pathlib.Path(os.path.expanduser(folder))  # leaves `~NAME` as it is where there is no such user


def made(name: str, arrays: Arrays, source: str) -> Dataset:
    """A data set of checked arrays."""
    return Dataset(name=name, source=source, **arrays._asdict())

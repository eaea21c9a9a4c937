"""Reads time series in the `.ts` format of the UCR and UEA archives: a header of `@` lines, then a series a line.

A line holds the values of one series, `,` between values, `:` between channels and before the label. Lines that begin
with `#` or `%` are comments. `?` and NaN stand for missing values; missing values behind the last one that is there
are padding.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from prfl_jax.data.check import PARTS, checked_arrays
from prfl_jax.data.dataset import DATA_DIR_VARIABLE, Dataset, made
from prfl_jax.data.sequences import stacked
from prfl_jax.system.errors import UserError
from prfl_jax.tasks import FEATURES

_TRAIN, _TEST = "_TRAIN.ts", "_TEST.ts"
_FLAGS = {"true": True, "false": False}


@dataclasses.dataclass
class Header:
    """What the `@` lines of a file say.

    Attributes:
      labels: names of the labels, in order.
      channels: of each series; None: it is not said.
      length: steps of each series; None: they differ, or it is not said.
    """

    labels: tuple[str, ...] = ()
    channels: int | None = None
    length: int | None = None


def ts_files(name: str, folder: pathlib.Path, cfg: Any = None) -> Dataset:
    """Series `[N, T, C]` of the files `NAME_TRAIN.ts` and `NAME_TEST.ts` beside it, NaN behind shorter ones.

    Labels are numbered in the order of the training file's `@classLabel`.

    Args:
      name: path of the training file, from the data folder.

    Raises:
      UserError: a file is missing, damaged, has other labels or channels than the other one, or lacks values.
    """
    path = folder / os.path.expanduser(name)
    paths = {"train": path, "test": path.with_name(path.name.removesuffix(_TRAIN) + _TEST)}
    for part, place in paths.items():
        if not os.path.isfile(place):  # also where a name is too long to ask for
            raise UserError(
                f"data.name={name}: no file {place} of {PARTS[part]} series (set data.dir or {DATA_DIR_VARIABLE})"
            )
    read = {part: read_ts(place) for part, place in paths.items()}
    (header, train, _), (other, test, _) = read["train"], read["test"]
    if set(header.labels) != set(other.labels):
        raise UserError(
            f"{paths['test']}: labels {_words(other.labels)}, the training file has {_words(header.labels)}"
        )
    if train[0].shape[1] != test[0].shape[1]:
        raise UserError(f"{paths['test']}: {test[0].shape[1]} channels, the training file has {train[0].shape[1]}")
    steps = max(len(one) for one in (*train, *test))
    found = {f"x_{part}": stacked(series, steps) for part, (_, series, _) in read.items()}
    found |= {f"y_{part}": np.array(list(map(header.labels.index, labels))) for part, (_, _, labels) in read.items()}
    arrays = checked_arrays(f"data.name={name}", found, len(header.labels), only=FEATURES)
    notes = [note for part, (_, _, labels) in read.items() for note in _cut_label(paths[part], header, labels[-1])]
    arrays = arrays._replace(notes=(*arrays.notes, *notes))
    return made(name, arrays, f"files {paths['train'].name} and {paths['test'].name}")


def _cut_label(path: pathlib.Path, header: Header, last: str) -> list[str]:
    """What to say of a file that may be cut in its last label: no line end there, and a longer label begins so."""
    longer = [label for label in header.labels if label.startswith(last) and label != last]
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        ended = file.read().isspace()
    if ended or not longer:
        return []
    return [f"{path.name} ends without a line end behind its last label {last}: if it was cut, that was {longer[0]}"]


def read_ts(path: pathlib.Path) -> tuple[Header, list[np.ndarray], list[str]]:
    """The header of a file, its series float64 `[T, C]` without padding, and the label of each.

    Raises:
      UserError: the file is not of that format, is cut, or a value is missing inside a series.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as e:
        raise UserError(f"{path}: no text in UTF-8 ({str(e).splitlines()[0]}); fetch it again") from e
    rows = ((n, line.strip()) for n, line in enumerate(lines, 1) if line.strip() and line.strip()[0] not in "#%")
    header = _header(path, rows)
    known = set(header.labels)
    series: list[np.ndarray] = []
    labels: list[str] = []
    for n, row in rows:
        *channels, label = row.split(":")
        where = f"{path}, line {n}"
        if label.strip() not in known:
            allowed = f"allowed are {_words(header.labels)}, behind the last ':' of a line"
            raise UserError(f"{where}: label {label.strip()[:40]!r}, {allowed}")
        wanted = header.channels or (series[0].shape[1] if series else len(channels))
        if len(channels) != wanted:
            raise UserError(f"{where}: {len(channels)} channels, expected {wanted}")
        series.append(_series(where, channels, header.length))
        labels.append(label.strip())
    if not series:
        raise UserError(f"{path}: no series behind @data; fetch it again")
    return header, series, labels


def _header(path: pathlib.Path, rows: Iterator[tuple[int, str]]) -> Header:
    header, equal, length = Header(), True, None
    for n, row in rows:
        where = f"{path}, line {n}"
        if not row.startswith("@"):
            raise UserError(f"{where}: values before @data; expected a header of @ lines")
        key, *values = row[1:].split()
        key, said = key.lower(), values[0] if values else ""
        if key == "data":
            if not header.labels:
                raise UserError(f"{path}: no '@classLabel true LABEL LABEL ...'; allowed are labelled series")
            header.length = length if equal else None
            return header
        if key == "timestamps" and _flag(where, key, said):
            raise UserError(f"{where}: series with time stamps; allowed are plain values, '@timeStamps false'")
        if key == "univariate" and _flag(where, key, said):
            header.channels = 1
        elif key in ("dimensions", "dimension"):
            header.channels = _count(where, key, said)
        elif key == "equallength":
            equal = _flag(where, key, said)
        elif key == "serieslength":
            length = _count(where, key, said)
        elif key == "classlabel" and _flag(where, key, said):
            header.labels = tuple(values[1:])
            if len(set(header.labels)) < len(header.labels):
                raise UserError(f"{where}: a label stands twice in @classLabel")
    raise UserError(f"{path}: no line @data; it is cut, or no .ts file")


def _flag(where: str, key: str, said: str) -> bool:
    if said.lower() not in _FLAGS:
        raise UserError(f"{where}: @{key} is {said!r}, allowed are true and false")
    return _FLAGS[said.lower()]


def _count(where: str, key: str, said: str) -> int:
    if not said.isdecimal() or not int(said):
        raise UserError(f"{where}: @{key} is {said!r}, allowed are whole numbers from 1")
    return int(said)


def _series(where: str, channels: list[str], length: int | None) -> np.ndarray:
    """Values `[T, C]` of one line without the padding at its end."""
    read = [_values(where, number, channel) for number, channel in enumerate(channels, 1)]
    sizes = sorted({len(values) for values in read})
    if len(sizes) > 1:
        raise UserError(f"{where}: channels of {sizes[0]} to {sizes[-1]} values; allowed are equally many")
    if length is not None and sizes[0] != length:
        raise UserError(f"{where}: {sizes[0]} values in each channel, @seriesLength is {length}")
    x = np.stack(read, axis=1)
    there = np.flatnonzero(~np.isnan(x).all(axis=1))
    x = x[: there[-1] + 1 if len(there) else 0]
    if not len(x):
        raise UserError(f"{where}: all values are missing; leave the line out")
    missing = np.argwhere(np.isnan(x))
    if len(missing):
        step, channel = missing[0].tolist()
        raise UserError(
            f"{where}: value {step + 1} of channel {channel + 1} is missing; fill it in, allowed are missing values "
            "behind the last one"
        )
    return x


def _values(where: str, number: int, channel: str) -> np.ndarray:
    texts = ["nan" if text.strip() == "?" else text for text in channel.split(",")]
    try:
        values = np.array(texts, np.float64)
    except ValueError:
        wrong = next(text for text in texts if not _is_number(text))
        raise UserError(f"{where}: channel {number} holds {wrong.strip()[:40]!r}, allowed are numbers") from None
    with np.errstate(over="ignore"):
        beyond = np.flatnonzero(np.isinf(values.astype(np.float32)))
    if len(beyond):
        raise UserError(
            f"{where}: channel {number} holds {texts[beyond[0]].strip()[:40]!r}, allowed are finite numbers of float32"
        )
    return values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _words(labels: tuple[str, ...]) -> str:
    return ", ".join(labels[:10]) + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")

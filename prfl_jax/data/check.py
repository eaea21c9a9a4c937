"""Checks a data set from any source: types and shapes of samples, range of targets, sizes of the splits."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from prfl_jax.data.plausibility import looks_strange
from prfl_jax.data.sequences import checked_series, checked_tokens, sequence_targets
from prfl_jax.system.errors import UserError, first_line
from prfl_jax.tasks import FEATURES, IMAGES, PADDING, SEQUENCES, SampleKind, kind_of

UNLABELLED = -1  # how tensorflow-datasets marks an image without a label
PARTS = {"train": "training", "test": "test"}  # of an array's name, and in words
_MAX_CLASSES = 10_000  # a larger label is a mistake, not a data set; more must be asked for by `num_classes`
_MOST_CLASSES = 1_000_000

Where = pathlib.Path | str


class Arrays(NamedTuple):
    """The arrays of a `Dataset`, in its types and shapes, its numbers of classes and tokens, and what looks strange."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    num_classes: int
    writer_train: np.ndarray | None
    writer_test: np.ndarray | None
    notes: tuple[str, ...] = ()
    tokens: int = 0


# what a source may hand over besides `x_train`, `y_train`, `x_test` and `y_test`
OPTIONAL = ("writer_train", "writer_test", "length_train", "length_test", "tokens")


def checked_arrays(
    where: Where,
    found: Mapping[str, Any],
    num_classes: int | None,
    unlabelled: int | None = None,
    only: SampleKind | None = None,
) -> Arrays:
    """Arrays of a data set in the types and shapes of `Dataset`; what only looks strange is noted.

    Args:
        where: a file, or as an error's text begins.
        found: `x_train`, `y_train`, `x_test`, `y_test` and, if there, `writer_train`, `writer_test`, `length_train`,
            `length_test` (steps of each sample, `[N]`) and `tokens` (how many different ones there are). Training and
            test samples have one shape: images uint8 `[N, H, W]` or `[N, H, W, C]`, series and other numbers
            floats `[N, F]`, `[N, T, C]`, ..., sequences of tokens whole numbers `[N, T]`. Labels and writers are
            whole numbers `[N]`, none negative; the targets of sequences may be `[N, T]`, `PADDING` where there is none.
        num_classes: what the labels must be below; None: the largest label + 1.
        unlabelled: the label of a sample that has none; such samples are left out, and counted in `notes`. None: there
            is no such label.
        only: the kind that the samples must be of; None: any.

    Raises:
        UserError: an array is missing (or None) or not as described, or no sample of a part has a label.
    """
    there = {name: _array(where, name, value) for name, value in found.items() if value is not None}
    for name in ("x_train", "y_train", "x_test", "y_test"):
        if name not in there:
            raise UserError(f"{where}: no array {name}; expected x_train, y_train, x_test, y_test")
    given = there["x_train"], there["x_test"]
    _one_way_of_lengths(where, there)
    largest = _largest_label(where, num_classes)
    tokens = _given_tokens(where, there)
    largest_step = largest if num_classes is not None else (tokens or _MOST_CLASSES) - 1
    notes: list[str] = []
    for part in PARTS:
        there[f"x_{part}"] = _samples(where, part, there, only)
        said = _without_unlabelled(where, part, there, unlabelled)
        notes += said
        size = len(there[f"x_{part}"])
        there[f"y_{part}"] = _targets(where, part, there, largest, largest_step)
        if f"writer_{part}" in there:
            noun, given_writers = noun_of(there[f"x_{part}"]), there[f"writer_{part}"]
            there[f"writer_{part}"] = _numbers(where, f"writer_{part}", given_writers, size, 2**31 - 1, noun)
    _one_type(where, *given)
    train, test = there["x_train"], there["x_test"]
    if train.shape[1:] != test.shape[1:]:
        kind = kind_of(train.dtype)
        pad = "" if kind is IMAGES else "; put padding (nan, or -1 for tokens) behind the shorter ones"
        raise UserError(
            f"{where}: x_train is {_shape(train.shape)} and x_test {_shape(test.shape)}: "
            f"{kind.name if kind else 'samples'} must be of one shape{pad}"
        )
    y_train, y_test = there["y_train"], there["y_test"]
    tokens = _tokens(where, tokens, train, test)
    sequence = y_train.ndim == 2 or y_test.ndim == 2
    if sequence and y_train.ndim != y_test.ndim:
        raise UserError(f"{where}: y_train is {_shape(y_train.shape)} and y_test {_shape(y_test.shape)}: both or none")
    classes = int(num_classes or max(tokens if sequence else 0, y_train.max() + 1, y_test.max() + 1))
    notes += looks_strange(train, y_train, test, y_test, classes)
    writers = there.get("writer_train"), there.get("writer_test")
    return Arrays(train, y_train, test, y_test, classes, *writers, tuple(notes), tokens)


def noun_of(x: np.ndarray) -> str:
    """What samples are called in messages about their number: `images` or `samples`."""
    return IMAGES.name if kind_of(x.dtype) is IMAGES else "samples"


def _one_type(where: Where, train: np.ndarray, test: np.ndarray) -> None:
    if kind_of(train.dtype) is kind_of(test.dtype):
        return
    other = test if train.dtype == np.uint8 else train
    advice = f"; images are uint8 pixels{_to_bytes(other)}" if np.uint8 in (train.dtype, test.dtype) else ""
    raise UserError(f"{where}: x_train is {train.dtype} and x_test {test.dtype}: samples must be of one type{advice}")


def _one_way_of_lengths(where: Where, there: Mapping[str, np.ndarray]) -> None:
    """Raises UserError where the lengths of one part are given without the other's; images have none."""
    given = [part for part in PARTS if f"length_{part}" in there]
    if len(given) == 1 and kind_of(there[f"x_{given[0]}"].dtype) is not IMAGES:
        raise UserError(f"{where}: length_{given[0]} is given alone; allowed are length_train and length_test, or none")


def _samples(where: Where, part: str, there: Mapping[str, np.ndarray], only: SampleKind | None) -> np.ndarray:
    """The samples of a part, with padding behind those that are shorter.

    Raises:
        UserError: they are no samples of any kind.
    """
    name, x, lengths = f"x_{part}", there[f"x_{part}"], there.get(f"length_{part}")
    kind = kind_of(x.dtype)
    if kind is FEATURES and only in (None, FEATURES):
        return checked_series(where, name, x, lengths)
    if kind is SEQUENCES and x.ndim <= 2 and only in (None, SEQUENCES):
        return checked_tokens(where, name, x, lengths)
    if only not in (None, IMAGES):
        raise UserError(f"{where}: {name} is {x.dtype} {_shape(x.shape)}, expected {only.name} as {only.stored}")
    if only is None and np.iscomplexobj(x):
        raise UserError(
            f"{where}: {name} is {x.dtype}, expected images as uint8, series as floats, tokens as whole numbers; real "
            "and imaginary part can be two channels: np.stack([x.real, x.imag], axis=-1)"
        )
    if lengths is not None:
        raise UserError(f"{where}: length_{part} is given, but {name} is {x.dtype}; allowed with series and sequences")
    return checked_images(where, name, x)


def _targets(where: Where, part: str, there: Mapping[str, np.ndarray], largest: int, largest_step: int) -> np.ndarray:
    """Labels `[N]`, at most `largest`, or the targets `[N, T]` of sequences, at most `largest_step`.

    Where the lengths of sequences are given, targets behind the last token are no targets.

    Raises:
        UserError: they are neither.
    """
    x, y, name = there[f"x_{part}"], there[f"y_{part}"], f"y_{part}"
    if kind_of(x.dtype) is SEQUENCES and y.shape == x.shape and y.shape[1] > 1:
        return sequence_targets(where, name, y, x, largest_step, padded=f"length_{part}" in there)
    _no_step_targets(where, name, y, x)
    return _numbers(where, name, y, len(x), largest, noun_of(x))


def _no_step_targets(where: Where, name: str, y: np.ndarray, x: np.ndarray) -> None:
    """Raises UserError for `[N, K]` that look like targets at the steps of samples `x` that cannot have them."""
    if y.ndim != 2 or len(y) != len(x) or y.shape[1] == 1 or _rows_mark_a_class(y):
        return
    if kind_of(x.dtype) is not SEQUENCES and abs(y.shape[1] - x.shape[1]) > 1:
        return  # neither as many as steps, nor one less
    begin = f"{where}: {name} is {y.dtype} {_shape(y.shape)}, expected whole numbers [{len(x)}]"
    if kind_of(x.dtype) is SEQUENCES:
        raise UserError(f"{begin}, or {_shape(x.shape)}: a target for each token, {PADDING} where there is none")
    if x.ndim == 2:
        raise UserError(f"{begin}; targets at each step are for tokens, and x holds floats: x.astype(np.int32)")
    raise UserError(f"{begin}: one for each of the {noun_of(x)}; targets at each step are for token sequences")


def _rows_mark_a_class(y: np.ndarray) -> bool:
    """Whether each row `[K]` holds shares of classes: none negative, 1 in all."""
    if not (np.issubdtype(y.dtype, np.number) or y.dtype == bool) or np.iscomplexobj(y):
        return False
    return bool((y >= 0).all() and np.allclose(y.sum(axis=1, dtype=np.float64), 1.0, atol=1e-2))


def _given_tokens(where: Where, there: Mapping[str, np.ndarray]) -> int | None:
    """How many different tokens a source says that there are; None: it does not say.

    Raises:
        UserError: it is no such number.
    """
    given = there.get("tokens")
    if given is None:
        return None
    if given.shape != () or not np.issubdtype(given.dtype, np.integer) or not 0 <= given <= _MOST_CLASSES:
        raise UserError(f"{where}: tokens is {str(given)[:40]}, allowed is a whole number from 1 to {_MOST_CLASSES}")
    return int(given)


def _tokens(where: Where, given: int | None, train: np.ndarray, test: np.ndarray) -> int:
    """How many different tokens there are; 0 where samples are no sequences.

    Raises:
        UserError: a token is out of the range that the source gives.
    """
    if kind_of(train.dtype) is not SEQUENCES:
        return 0
    largest = max(int(train.max()), int(test.max()))
    if given == 0:  # which a data set of something else than tokens has
        raise UserError(f"{where}: tokens is 0, allowed is a whole number from 1 to {_MOST_CLASSES}")
    if given is not None and largest >= given:
        raise UserError(f"{where}: token {largest} is out of the vocabulary, allowed are 0..{given - 1}")
    return given or largest + 1


def checked_images(where: Where, name: str, x: np.ndarray) -> np.ndarray:
    """Images as uint8 `[N, H, W, C]`; grey ones are given their channel axis.

    Raises:
        UserError: they are not uint8, or not of that shape.
    """
    if x.dtype != np.uint8:
        raise UserError(f"{where}: {name} is {x.dtype}, expected uint8 pixels in 0..255{_to_bytes(x)}")
    if x.ndim not in (3, 4) or 0 in x.shape:
        advice = ""
        if x.ndim == 2:  # flat images, or tokens
            advice = "; uint8 are images; tokens [N, T] are whole numbers of another type: x.astype(np.int32)"
        raise UserError(f"{where}: {name} is {_shape(x.shape)}, expected {IMAGES.shapes}, not empty{advice}")
    return x if x.ndim == 4 else x[..., None]


def _array(where: Where, name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except Exception as e:  # whatever a user's array type raises
        array = np.empty(0, object)
        said = first_line(e)[:100]
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
        given = _one_shape(value)
        raise UserError(f"{where}: {name} holds {len(shapes)} shapes, {some}: {given} must be of one shape, labels [N]")
    raise UserError(f"{where}: {name} is no array of numbers ({said}); expected numpy arrays")


def _one_shape(entries: Any) -> str:
    """What the entries of a ragged array are; how series and sequences become one array."""
    if any(np.ndim(entry) == 2 and np.asarray(entry).dtype == np.uint8 for entry in entries):
        return IMAGES.name
    return f"samples (padded behind the last step: series with nan, tokens with {PADDING})"


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
    """Leaves samples without a label out of the arrays of one part; says how many there were.

    Raises:
        UserError: no sample is left.
    """
    labels = there[f"y_{part}"]
    if mark is None or labels.shape != there[f"x_{part}"].shape[:1]:
        return []
    count, noun = int(np.count_nonzero(labels == mark)), noun_of(there[f"x_{part}"])
    if not count:
        return []
    if count == len(labels):
        what = "nothing can be scored" if part == "test" else "nothing can be trained on"
        raise UserError(
            f"{where}: none of its {count:,} {PARTS[part]} {noun} has a label (all are {mark}), so {what}; write its "
            f"labelled {noun} to a .npz file, a part of them as x_test and y_test, and name that"
        )
    for name in ("x", "writer", "y"):  # lengths have been applied
        if f"{name}_{part}" in there:
            there[f"{name}_{part}"] = there[f"{name}_{part}"][labels != mark]
    return [f"{count:,} of {len(labels):,} {PARTS[part]} {noun} have no label ({mark}) and are left out"]


def _numbers(where: Where, name: str, values: np.ndarray, size: int, largest: int, noun: str) -> np.ndarray:
    if values.shape != (size,) or not np.issubdtype(values.dtype, np.integer):
        raise UserError(
            f"{where}: {name} is {values.dtype} {_shape(values.shape)}, expected whole numbers [{size}]"
            f"{_to_numbers(values, size, noun)}"
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


def _to_numbers(values: np.ndarray, size: int, noun: str) -> str:
    """What to do with labels or writers that are not whole numbers `[size]`."""
    if values.shape == (size, 1):
        return "; drop its second axis: values[:, 0]"
    if values.ndim == 2 and len(values) == size:
        return "; where each row marks one class: values.argmax(axis=1)"
    if values.shape != (size,):
        return f", one for each of the {noun}, which are counted along their first axis"
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

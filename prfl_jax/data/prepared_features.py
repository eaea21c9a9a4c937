"""Features of tensorflow-datasets that samples are made of: images, waveforms and texts."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from prfl_jax.data.audio import RATE, log_mel
from prfl_jax.data.check import PARTS, UNLABELLED, Arrays, checked_arrays, checked_images
from prfl_jax.data.sequences import stacked
from prfl_jax.data.text.samples import encoded, language_data
from prfl_jax.data.text.vocabulary import UNITS
from prfl_jax.system.errors import UserError
from prfl_jax.tasks import FEATURES, IMAGES, SEQUENCES

NPZ = "write its samples and labels to a .npz file, and name that"


class Split(NamedTuple):
    """A split that is read: as an error's text begins, its name, the samples' feature and how many records it has."""

    where: str
    part: str
    feature: str
    size: int
    description: Any  # the feature's object in tensorflow-datasets


class Records(NamedTuple):
    """What was read of a split: samples, labels as they are, and writers, None where a record has none."""

    x: Any
    y: list[Any]
    writers: list[Any]


def arrays_of(parts: Mapping[str, Records]) -> dict[str, Any]:
    """Samples and labels by the names that `checked_arrays` takes."""
    samples = {f"x_{part}": read.x for part, read in parts.items()}
    return samples | {f"y_{part}": np.asarray(read.y) for part, read in parts.items()}


class Collect(abc.ABC):
    """How the samples of one feature are collected and become arrays.

    Attributes:
        needs_label: whether samples without a label are of no use.
    """

    needs_label = True

    def __call__(self, split: Split, records: Iterator[Mapping[str, Any]]) -> Records:
        """Reads the records of a split, one at a time.

        Raises:
            UserError: a sample is not as expected.
        """
        read = Records(self.begin(split), [], [])
        for number, record in enumerate(records):
            self.add(split, read.x, number, record[split.feature])
            read.y.append(record.get("label"))
            read.writers.append(record.get("writer"))
        return read._replace(x=self.end(read.x))

    def begin(self, split: Split) -> list[Any]:
        """Where samples are collected."""
        return []

    @abc.abstractmethod
    def add(self, split: Split, collected: list[Any], number: int, value: Any) -> None:
        """Collects one sample."""

    def end(self, collected: list[Any]) -> Any:
        """The samples of a split."""
        return collected

    @abc.abstractmethod
    def arrays(self, where: str, parts: Mapping[str, Records], classes: int | None, cfg: Any) -> Arrays:
        """The checked arrays of both splits.

        Args:
            classes: how many labels there are; None: samples have none.
            cfg: the group `data` of the config.
        """


class Images(Collect):
    """Images of one shape, bytes."""

    def add(self, split: Split, collected: list[Any], number: int, value: Any) -> None:
        where, part = split.where, split.part
        image = checked_images(where, f"image {number} of split {part}", np.asarray(value)[None])[0]
        if not collected:
            collected.append(np.empty((split.size, *image.shape), np.uint8))
        images = collected[0]
        if image.shape != images.shape[1:]:
            first, other = (" x ".join(map(str, shape)) for shape in (images.shape[1:], image.shape))
            raise UserError(
                f"{where}: images of split {part} are of several shapes, the first {first} and number {number} "
                f"{other}; resize them, {NPZ}"
            )
        images[number] = image

    def end(self, collected: list[Any]) -> np.ndarray:
        return collected[0]

    def arrays(self, where: str, parts: Mapping[str, Records], classes: int | None, cfg: Any) -> Arrays:
        return checked_arrays(where, arrays_of(parts), classes, UNLABELLED, IMAGES)


class Waveforms(Collect):
    """Waveforms, which become log-mel frames; of a feature that does not say its rate, they have 16 kHz."""

    def add(self, split: Split, collected: list[Any], number: int, value: Any) -> None:
        rate = getattr(split.description, "sample_rate", None) or RATE
        collected.append(log_mel(f"{split.where}: {split.feature} {number} of split {split.part}", value, int(rate)))

    def arrays(self, where: str, parts: Mapping[str, Records], classes: int | None, cfg: Any) -> Arrays:
        steps = max(len(frames) for read in parts.values() for frames in read.x)
        stacks = {part: read._replace(x=stacked(read.x, steps)) for part, read in parts.items()}
        return checked_arrays(where, arrays_of(stacks), classes, UNLABELLED, FEATURES)


class Texts(Collect):
    """Texts as tokens (`data.unit`, `data.vocabulary`).

    Texts with a label are samples, at most `data.context` tokens of each. Those without one are joined, characters by
    a line end, and cut into windows of `data.context` tokens for a language model.
    """

    needs_label = False

    def add(self, split: Split, collected: list[Any], number: int, value: Any) -> None:
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if not isinstance(text, str):
            one = f"{split.where}: {split.feature} {number} of split {split.part}"
            raise UserError(f"{one} is a {type(text).__name__}, expected a text")
        collected.append(text)

    def arrays(self, where: str, parts: Mapping[str, Records], classes: int | None, cfg: Any) -> Arrays:
        texts = {part: read.x for part, read in parts.items()}
        vocabulary = UNITS.find(cfg.unit).vocabulary(texts["train"], cfg.vocabulary, running=classes is None)
        if classes is None:
            train, test = ([np.concatenate([vocabulary.encode(f"{text}\n") for text in texts[part]])] for part in PARTS)
            return language_data(where, train, test, cfg.context, vocabulary.tokens, by_stream=False)
        found = arrays_of(parts) | encoded(texts, vocabulary, cfg.context)
        tokens = {"tokens": np.int64(vocabulary.tokens)}
        return checked_arrays(where, found | tokens, classes, UNLABELLED, SEQUENCES)


# by the name of a feature; of several that a data set has, the first one here counts
COLLECT: dict[str, Collect] = {"image": Images(), "audio": Waveforms(), "text": Texts(), "sentence": Texts()}

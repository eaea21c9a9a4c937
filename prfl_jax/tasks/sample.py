"""Kinds of samples: images of bytes, arrays of numbers (series, features), sequences of tokens; told by their arrays.

A sample may be shorter than the array that holds it. What follows its last step is padding: `PADDING` in a sequence of
tokens, NaN in an array of numbers.
"""

from __future__ import annotations

import dataclasses

import numpy as np

PADDING = -1  # in place of a token or of a target: there is none


@dataclasses.dataclass(frozen=True)
class SampleKind:
    """One kind of samples.

    Attributes:
      name: of many of them, in messages.
      one: of one of them.
      stored: the type of the arrays on the device.
      given: the type that a model is given.
      shapes: the shapes of an array of them, in words.
    """

    name: str
    one: str
    stored: str
    given: str
    shapes: str


# bytes, which `data.normalize` and `data.augment` are about
IMAGES = SampleKind("images", "image", "uint8", "float32", "[N, H, W] or [N, H, W, C]")
# floats: series, log-mel frames, tables of features
FEATURES = SampleKind("series", "series", "float32", "float32", "[N, T, C] (series of T steps) or [N, F, ...]")
# whole numbers: characters or words
SEQUENCES = SampleKind("token sequences", "sequence", "int32", "int32", "[N, T]")
# all kinds
KINDS = (IMAGES, FEATURES, SEQUENCES)


def kind_of(dtype: np.dtype) -> SampleKind | None:
    """The kind of samples in arrays of that type; None: such arrays hold no samples."""
    if dtype == np.uint8:
        return IMAGES
    if np.issubdtype(dtype, np.floating):
        return FEATURES
    if np.issubdtype(dtype, np.integer):
        return SEQUENCES
    return None


@dataclasses.dataclass(frozen=True)
class SampleSpec:
    """What a model is given of one sample.

    Attributes:
      shape: `(H, W, C)` of an image, `(T, C)` of a series, `(T,)` of a sequence of tokens.
      kind: of the sample.
      tokens: number of different tokens; 0: none are known.
      padded: whether some samples are shorter than their array.
    """

    shape: tuple[int, ...]
    kind: SampleKind = IMAGES
    tokens: int = 0
    padded: bool = False

    @property
    def dtype(self) -> str:
        """The type of what a model is given."""
        return self.kind.given

    @property
    def words(self) -> str:
        """Such samples, in messages: `images (28, 28, 1)`."""
        return f"{self.kind.name} {self.shape}"


def sample_lengths(x: np.ndarray) -> np.ndarray:
    """Steps `[N]` of each sample before its padding.

    Args:
      x: `[N, T]` int32 or `[N, T, ...]` float32.
    """
    there = x != PADDING if np.issubdtype(x.dtype, np.integer) else ~np.isnan(x)
    there = there.reshape(*x.shape[:2], -1).any(axis=2)
    return np.where(there.any(axis=1), x.shape[1] - np.argmax(there[:, ::-1], axis=1), 0)


def pad(x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """A copy of samples `[N, T, ...]` with padding from the step `lengths` `[N]` on."""
    x = x.copy()
    x[np.arange(x.shape[1])[None] >= lengths[:, None]] = PADDING if np.issubdtype(x.dtype, np.integer) else np.nan
    return x

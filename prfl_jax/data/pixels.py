"""The choices of `data.normalize` and `data.augment`: how samples become a model's input (imports no JAX)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from prfl_jax.registry import Lazy, Registry
from prfl_jax.tasks import FEATURES, IMAGES, KINDS, SampleKind

CIFAR10_MEAN = np.array([0.4914, 0.4822, 0.4465], np.float32)
CIFAR10_STD = np.array([0.2023, 0.1994, 0.2010], np.float32)


@dataclasses.dataclass(frozen=True)
class Normalization:
    """One choice of `data.normalize`.

    Attributes:
        apply: float32 pixels `[..., H, W, C]` in [0, 1] -> what the model is given, of the same shape.
        around: the byte around an image without a background of its own.
        channels: that the images must have; None: any number.
        kinds: of samples that it takes; those that are no images are given to the model as they are.
        standard: whether the training samples' mean and deviation of each channel become 0 and 1, once on the host.
    """

    apply: Callable[[Any], Any]
    around: int = 0
    channels: int | None = None
    kinds: tuple[SampleKind, ...] = (IMAGES,)
    standard: bool = False

    def takes(self, channels: int) -> bool:
        """Whether images of so many channels can be normalised so."""
        return self.channels in (None, channels)


# the choices of `data.normalize`
NORMALIZATIONS: Registry[Normalization] = Registry(
    "data.normalize",
    {
        "unit": Normalization(lambda pixels: pixels, kinds=KINDS),
        # of images with a white background (FEMNIST)
        "inverted": Normalization(lambda pixels: 1 - pixels, around=255),
        # Black around the images, which is not 0 then: as in the code that PR-FL builds on, whose images are padded
        # before they are normalised.
        "cifar10": Normalization(lambda pixels: (pixels - CIFAR10_MEAN) / CIFAR10_STD, channels=3),
        "standard": Normalization(lambda pixels: pixels, kinds=(FEATURES,), standard=True),
    },
)


def standardized(x_train: np.ndarray, x_test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers `[N, ..., C]` less the training samples' mean of each channel, over their deviation; NaN stays.

    A channel that is the same in all training samples becomes 0.
    """
    flat = x_train.reshape(-1, x_train.shape[-1]).astype(np.float64)
    mean, deviation = np.nanmean(flat, axis=0), np.nanstd(flat, axis=0)
    deviation[deviation == 0] = 1
    return tuple(((x - mean) / deviation).astype(np.float32) for x in (x_train, x_test))  # type: ignore[return-value]


# (key, images `[B, H, W, C]` uint8, the pixel around them) -> changed images of the same shape; None: no change
Augmentation = Callable[[Any, Any, Any], Any]

# the choices of `data.augment`
AUGMENTATIONS: Registry[Augmentation | None] = Registry(
    "data.augment", {"none": None, "crop_flip": Lazy("prfl_jax.data.device:crop_flip")}
)

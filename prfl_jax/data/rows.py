"""`Rows`: samples on a device, each as one row of values."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """Samples of one shape, kept as rows; indexing gives samples.

    A TPU's compiler lays images `[N, H, W, 3]` out anew, padded fourfold; rows it takes as they are.

    Attributes:
      values: `[..., n]`, the values of a sample in a row.
      shape: of a sample; its product is n.
    """

    values: Any
    shape: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, samples: Any, leading: int = 1) -> Rows:
        """Samples `[N, ...]`, or with `leading` such axes, as rows; NumPy's or JAX's arrays."""
        shape = tuple(samples.shape[leading:])
        return cls(samples.reshape(*samples.shape[:leading], math.prod(shape)), shape)

    def __getitem__(self, index: Any) -> Any:
        """The samples at an index of the leading axes, in their shape."""
        found = self.values[index]
        return found.reshape(*found.shape[:-1], *self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype)

    def __len__(self) -> int:
        return len(self.values)

"""Sizes of a model and of its nested sub-models: values, bytes, FLOP of each density (NumPy only).

Densities are snapped to whole percents (`percent`, 1..100), so one int8 level per
weight describes every client's mask. The counts here are exact: the level kernel
selects exactly that many weights, and the clock charges exactly their bytes.
"""

from __future__ import annotations

import dataclasses
import math


def to_percent(density: float) -> int:
    """Snaps a density in (0, 1] to a whole percent, halves rounded up, at least 1.

    Examples:
      >>> to_percent(1 / 8), to_percent(0.001)
      (13, 1)
    """
    if not 0.0 < density <= 1.0:
        raise ValueError(f"density {density} is not in (0, 1]")
    return max(1, math.floor(100.0 * density + 0.5))


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """Sizes of one model.

    Args:
      layers: weights of each prunable leaf (kernels), in the order of the leaves.
      fixed: values that are never pruned and always sent (biases, norms).
      bytes_per_value: what the clock charges for one value; 4 for float32, or
        `size_mb * 1e6 / (prunable + fixed)` where a config keeps a paper's MB.
      layer_flop: forward FLOP per sample of each prunable leaf, same order; () where they are not known.
      min_percent: the smallest density in use (percent); each layer keeps at
        least its own share of it, so that no layer empties.
      rest_flop: forward FLOP per sample that no mask discounts: products that read no prunable leaf.
      state: how many values are a model's state, which is sent and not trained.
      kernels: weights of each leaf of rank 2 and more, in the order of the leaves, whether it can be pruned or not.
      kernel_layers: which of `layers` each of these is; () where none of them can be pruned.
    """

    layers: tuple[int, ...]
    fixed: int
    bytes_per_value: float = 4.0
    layer_flop: tuple[float, ...] = ()
    min_percent: int = 1
    rest_flop: float = 0.0
    state: int = 0
    kernels: tuple[int, ...] = ()
    kernel_layers: tuple[int, ...] = ()

    @property
    def prunable(self) -> int:
        """Weights that can be pruned."""
        return sum(self.layers)

    @property
    def total(self) -> int:
        """Values of the full model."""
        return self.prunable + self.fixed

    def base_counts(self) -> tuple[int, ...]:
        """Weights every sub-model keeps in each layer: the layer's own min-density share, at least 1."""
        return tuple(max(1, n * self.min_percent // 100) for n in self.layers)

    def count(self, percent: int) -> int:
        """Prunable weights a sub-model of that density keeps (halves rounded up)."""
        if not 1 <= percent <= 100:
            raise ValueError(f"percent {percent} is not in 1..100")
        return max((self.prunable * percent + 50) // 100, sum(self.base_counts()))

    def state_count(self, percent: int) -> int:
        """Values of the state that a sub-model of that density has."""
        return self.state

    def value_bytes(self, percent: int) -> int:
        """Bytes of the values of a sub-model: its weights and everything that is never pruned."""
        return round((self.count(percent) + self.fixed) * self.bytes_per_value)

    def sent_bytes(self, percent: int) -> int:
        """Bytes of one dispatch, without a mask that is sent once for several dispatches (`mask_bytes`)."""
        return self.value_bytes(percent)

    def mask_bytes(self, percent: int) -> int:
        """Bytes that describe a mask: the cheaper of a bitmap and 4-byte indices; none for the full model."""
        if percent == 100:
            return 0
        return min(math.ceil(self.prunable / 8), 4 * self.count(percent))

    def density_bytes(self, percent: int) -> int:
        """The paper's rule: density x model size, no masks."""
        return round(self.total * self.bytes_per_value * percent / 100)

    def held_kernels(self, percent: int) -> tuple[float, ...]:
        """Weights of each kernel that a sub-model has; where only the density is known, as if each had it."""
        share = self.count(percent) / self.prunable if self.kernel_layers else 1.0
        return tuple(share * kernel for kernel in self.kernels)

    def flop_share(self, percent: int) -> float:
        """Share of the prunable leaves' forward FLOP, where only the density is known."""
        return percent / 100.0

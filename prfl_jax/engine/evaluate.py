"""Evaluates a model's accuracy and loss on images that are on the device as uint8."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec

from prfl_jax.data.device import preprocess
from prfl_jax.engine.placement import ALL, AXIS, Placement
from prfl_jax.models.build import Model
from prfl_jax.models.losses import Loss
from prfl_jax.models.variables import whole
from prfl_jax.system.host_offload import fetch

IMAGES_PER_CALL = 1000  # of one device call; about two seconds for the largest model on two CPU cores


class EvalSet(NamedTuple):
    """Images `[pieces, B, H, W, C]` uint8 and labels `[pieces, B]` int32, padded with label -1."""

    x: jax.Array
    y: jax.Array


class Sums(NamedTuple):
    """The result of one device call.

    Attributes:
      correct, samples: `[classes]` counts by true label.
      losses: the loss of each image, 0 for padding.
    """

    correct: jax.Array
    samples: jax.Array
    losses: jax.Array


@dataclasses.dataclass(frozen=True)
class Scores:
    """Sums over one data set.

    Attributes:
      correct, count: `[classes]` by true label.
      loss: sum over the samples.
    """

    correct: np.ndarray
    count: np.ndarray
    loss: float

    @property
    def accuracy(self) -> float:
        """Share of correct samples."""
        return float(self.correct.sum() / self.count.sum())

    @property
    def mean_loss(self) -> float:
        """Mean loss of a sample."""
        return float(self.loss / self.count.sum())

    def per_class(self) -> list[float | None]:
        """Accuracy by true label; None for a class without samples."""
        return [float(c / n) if n else None for c, n in zip(self.correct, self.count, strict=True)]

    def under(self, labels: np.ndarray) -> float | None:
        """Accuracy weighted by a client's own mix of `labels`, `[classes]` counts; None if it has none of them."""
        shares = np.where(self.count > 0, labels, 0).astype(np.float64)
        if not shares.sum():
            return None
        return float(np.sum(shares * self.correct / np.maximum(self.count, 1)) / shares.sum())


def images_each(images: int, batch_size: int, devices: int) -> int:
    """Images of one piece that each device has."""
    return -(-min(batch_size, images) // devices)


def make_eval_set(x: np.ndarray, y: np.ndarray, batch_size: int, placement: Placement | None = None) -> EvalSet:
    """Copies images to the device in pieces of one shape; several devices share the images of a piece evenly."""
    count = 1 if placement is None else placement.count
    size = images_each(len(x), batch_size, count) * count
    pieces = -(-len(x) // size)
    padding = pieces * size - len(x)
    x = np.concatenate([x, np.zeros((padding, *x.shape[1:]), x.dtype)])
    y = np.concatenate([y.astype(np.int32), np.full(padding, -1, np.int32)])
    made = EvalSet(x.reshape(pieces, size, *x.shape[1:]), y.reshape(pieces, size))  # type: ignore[arg-type]
    if placement is None:
        return jax.tree.map(jnp.asarray, made)
    return placement.put(made, PartitionSpec(None, AXIS))


def pieces_at_once(size: int) -> int:
    """Number of pieces of `size` images that one device call evaluates."""
    return max(1, IMAGES_PER_CALL // size)


class Evaluator:
    """Evaluates params on data whose labels are below `data_classes`.

    The loss of each image is returned and summed on the host in float64, so that the sum does not depend on batches and
    devices. The params are those of `Model.apply`: with the fixed variables, if there are any.

    Args:
      model: it is applied without training behaviour.
      loss: (logits, labels) -> loss of each image.
      normalize: how uint8 images become floats (`data.normalize`).
      data_classes: labels are below it.
      placement: several devices share the images of a piece; None: the default device has all.
      matmul: precision of matrix products, as for `Client`.
    """

    def __init__(
        self,
        model: Model,
        loss: Loss,
        normalize: str,
        data_classes: int,
        placement: Placement | None = None,
        matmul: str | None = None,
    ) -> None:
        self.placement = placement = placement or Placement(1, tuple(jax.devices()[:1]))

        def piece(params: Any, data: EvalSet, first: jax.Array, number: jax.Array, sums: Sums) -> Sums:
            x, y = data.x[number], data.y[number]
            with jax.default_matmul_precision(matmul):
                logits = model.apply(params, preprocess(x, normalize), False, None)
            valid = y >= 0
            label = jnp.where(valid, y, 0)
            right = valid & (jnp.argmax(logits, axis=-1) == label)
            return Sums(
                sums.correct.at[label].add(right.astype(jnp.int32)),
                sums.samples.at[label].add(valid.astype(jnp.int32)),
                sums.losses.at[number - first].set(jnp.where(valid, loss(logits, label), 0.0)),
            )

        def pieces(params: Any, data: EvalSet, first: jax.Array, end: jax.Array) -> Sums:
            zeros = jnp.zeros(data_classes, jnp.int32)
            own = data.y.shape[1]  # images of a piece on this device
            start = Sums(zeros, zeros, jnp.zeros((pieces_at_once(own * placement.count), own), jnp.float32))
            sums = lax.fori_loop(first, end, lambda i, sums: piece(params, data, first, i, sums), start)
            correct, samples = placement.sum((sums.correct, sums.samples))
            return Sums(correct, samples, placement.gather(sums.losses))

        self._pieces = placement.jit(pieces, (ALL, PartitionSpec(None, AXIS), ALL, ALL), ALL)

        def take(stack: Any, slot: jax.Array) -> Any:
            return jax.tree.map(lambda leaf: fetch(leaf, slot).astype(jnp.float32), stack)  # stored with fewer bits

        self._take = placement.jit_global(take, ALL)

    def warm_up(self, params: Any, data: EvalSet) -> None:
        """Compiles for data of this shape without evaluating any."""
        jax.block_until_ready(self._pieces(params, data, np.int32(0), np.int32(0)))

    def __call__(self, params: Any, data: EvalSet, check: Callable[[], None] = lambda: None) -> Scores:
        """Scores of one model on all of `data`.

        Args:
          params: of the model.
          data: images and labels.
          check: called between device calls, so that a signal need not wait for a whole test set.
        """
        total, size = data.y.shape
        step = pieces_at_once(size)
        correct = count = 0
        loss = 0.0
        for first in range(0, total, step):
            check()
            sums = jax.device_get(self._pieces(params, data, np.int32(first), np.int32(min(first + step, total))))
            correct, count = correct + sums.correct, count + sums.samples
            loss += float(sums.losses.sum(dtype=np.float64))
        return Scores(np.asarray(correct), np.asarray(count), loss)

    def slot(
        self, buffer: Any, slot: int, data: EvalSet, check: Callable[[], None] = lambda: None, fixed: Any = None
    ) -> Scores:
        """Scores of the model in one slot of `buffer` `[M, ...]`, as it was received: under its own mask.

        Args:
          buffer: updates, stacked.
          slot: index of the first axis.
          data, check: as above.
          fixed: variables that are not trained, if there are any.
        """
        return self(whole(self._take(buffer, np.int32(slot)), fixed), data, check)

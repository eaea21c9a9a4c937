"""Evaluates a model on samples that are on the device: the sums from which a task's metric is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec

from prfl_jax.data.device import preprocess
from prfl_jax.data.rows import Rows
from prfl_jax.engine.placement import ALL, AXIS, Placement
from prfl_jax.models.build import Model
from prfl_jax.models.losses import Loss
from prfl_jax.system import accelerator
from prfl_jax.system.host_offload import fetch
from prfl_jax.tasks import CLASSIFICATION, Scores, Task

# Samples of one device call, after which the host waits and a signal is seen: about two seconds for the largest model
# on two CPU cores, and less on an accelerator.
SAMPLES_PER_CALL, ON_ACCELERATOR = 1_000, 20_000


class EvalSet(NamedTuple):
    """Samples `[pieces, B]` and targets `[pieces, B]` or `[pieces, B, T]` int32, padded with target -1."""

    x: Rows
    y: jax.Array


class Sums(NamedTuple):
    """The result of one device call.

    Attributes:
      correct, samples: `[classes]` counts of targets by true label.
      losses: the loss of each target, 0 for padding.
      extra: by name, what the task computes of each target besides (`Task.extra`), likewise.
    """

    correct: jax.Array
    samples: jax.Array
    losses: jax.Array
    extra: Any


def samples_each(samples: int, batch_size: int, devices: int) -> int:
    """Samples of one piece that each device has."""
    return -(-min(batch_size, samples) // devices)


def in_pieces(x: np.ndarray, y: np.ndarray, batch_size: int, count: int) -> EvalSet:
    """Arranges samples in pieces of one shape, on the host; `count` devices share the samples of a piece evenly.

    Args:
      x, y: samples `[N, ...]` and targets `[N]` or `[N, T]`.
      batch_size: samples of a piece, at most.
    """
    size = samples_each(len(x), batch_size, count) * count
    pieces = -(-len(x) // size)
    padding = pieces * size - len(x)
    x = np.concatenate([x, np.zeros((padding, *x.shape[1:]), x.dtype)])
    y = np.concatenate([y.astype(np.int32), np.full((padding, *y.shape[1:]), -1, np.int32)])
    return EvalSet(Rows.of(x.reshape(pieces, size, *x.shape[1:]), 2), y.reshape(pieces, size, *y.shape[1:]))  # type: ignore[arg-type]


def make_eval_set(x: np.ndarray, y: np.ndarray, batch_size: int, placement: Placement | None = None) -> EvalSet:
    """Copies samples to the devices, `in_pieces`."""
    made = in_pieces(x, y, batch_size, 1 if placement is None else placement.count)
    if placement is None:
        return jax.tree.map(jnp.asarray, made)
    return placement.put(made, PartitionSpec(None, AXIS))


def pieces_at_once(size: int) -> int:
    """Number of pieces of `size` samples that one device call evaluates."""
    return max(1, (SAMPLES_PER_CALL if accelerator.on_cpu() else ON_ACCELERATOR) // size)


class Evaluator:
    """Evaluates params on data whose labels are below `data_classes`.

    The loss of each target is returned and summed on the host in float64, so that the sum does not depend on batches
    and devices. The params are those of `Model.apply`: with the fixed variables, if there are any.

    Args:
      model: it is applied without training behaviour.
      loss: (logits, labels) -> loss of each target.
      normalize: how uint8 images become floats (`data.normalize`).
      data_classes: labels are below it.
      placement: several devices share the samples of a piece; None: the default device has all.
      matmul: precision of matrix products, as for `Client`.
      task: which targets are scored, and what is computed of them besides.
    """

    def __init__(
        self,
        model: Model,
        loss: Loss,
        normalize: str,
        data_classes: int,
        placement: Placement | None = None,
        matmul: str | None = None,
        task: Task = CLASSIFICATION,
    ) -> None:
        self.placement = placement = placement or Placement(1, accelerator.devices()[:1])

        def score(logits: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, Any]:
            """(labels, whether each counts, whether it is predicted, loss and more of each target)."""
            logits, y = task.targets(logits, y)
            valid = y >= 0
            label = jnp.where(valid, y, 0)
            right = valid & (jnp.argmax(logits, axis=-1) == label)
            extra = dict(task.extra(logits, label)) if task.extra is not None else {}
            return label, valid, right, (loss(logits, label), extra)

        def piece(params: Any, data: EvalSet, first: jax.Array, number: jax.Array, sums: Sums) -> Sums:
            with jax.default_matmul_precision(matmul):
                logits = model.apply(params, preprocess(data.x[number], normalize), False, None)
            label, valid, right, each = score(logits, data.y[number])

            def put(all_of_them: jax.Array, one: jax.Array) -> jax.Array:
                return all_of_them.at[number - first].set(jnp.where(valid, one, 0.0))

            losses, extra = jax.tree.map(put, (sums.losses, sums.extra), each)
            return Sums(
                sums.correct.at[label].add(right.astype(jnp.int32)),
                sums.samples.at[label].add(valid.astype(jnp.int32)),
                losses,
                extra,
            )

        def pieces(params: Any, data: EvalSet, first: jax.Array, end: jax.Array) -> Sums:
            zeros = jnp.zeros(data_classes, jnp.int32)
            own = data.y.shape[1]  # samples of a piece on this device
            y = data.y[0]
            logits = jax.ShapeDtypeStruct((*y.shape, model.classes), jnp.float32)
            each = jax.eval_shape(lambda logits, y: score(logits, y)[3], logits, y)
            calls = pieces_at_once(own * placement.count)
            losses, extra = jax.tree.map(lambda one: jnp.zeros((calls, *one.shape), jnp.float32), each)
            start = Sums(zeros, zeros, losses, extra)
            sums = lax.fori_loop(first, end, lambda i, sums: piece(params, data, first, i, sums), start)
            correct, samples = placement.sum((sums.correct, sums.samples))
            losses, extra = jax.tree.map(placement.gather, (sums.losses, sums.extra))
            return Sums(correct, samples, losses, extra)

        self.pieces = placement.jit(pieces, (ALL, PartitionSpec(None, AXIS), ALL, ALL), ALL)

        def take(stack: Any, slot: Any) -> Any:
            return jax.tree.map(lambda leaf: fetch(leaf, slot).astype(jnp.float32), stack)  # stored with fewer bits

        self._take = placement.jit_global(take, ALL)

    def warm_up(self, params: Any, data: EvalSet) -> None:
        """Compiles for data of this shape without evaluating any."""
        jax.block_until_ready(self.pieces(params, data, np.int32(0), np.int32(0)))

    def __call__(self, params: Any, data: EvalSet, check: Callable[[], None] = lambda: None) -> Scores:
        """Scores of one model on all of `data`.

        Args:
          params: of the model.
          data: samples and targets.
          check: called between device calls, so that a signal need not wait for a whole test set.
        """
        total, size = data.y.shape[:2]
        step = pieces_at_once(size)
        correct = count = 0
        loss, extra = 0.0, dict[str, float]()
        for first in range(0, total, step):
            check()
            sums = jax.device_get(self.pieces(params, data, np.int32(first), np.int32(min(first + step, total))))
            correct, count = correct + sums.correct, count + sums.samples
            loss += float(sums.losses.sum(dtype=np.float64))
            for name, values in sums.extra.items():
                extra[name] = extra.get(name, 0.0) + float(values.sum(dtype=np.float64))
        return Scores(np.asarray(correct), np.asarray(count), loss, extra)

    def take(self, stack: Any, place: int) -> Any:
        """One item of what is stacked over clients, in float32, such as a model in the buffer."""
        return self._take(stack, np.int32(place))

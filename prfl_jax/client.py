"""One client: its local round, and what the server makes of the result. The engine maps this over slots."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prfl_jax.architectures import ARCHITECTURES
from prfl_jax.data.device import DeviceData, draw_batches
from prfl_jax.local import LocalResult, LocalWork, make_local_round
from prfl_jax.models.build import Model
from prfl_jax.models.losses import Loss
from prfl_jax.models.scaled import scaled_model
from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.leading import RATES
from prfl_jax.submodel.masks import pack, unpack_masks


class Keys(NamedTuple):
    """Keys split from the root seed by purpose."""

    data: jax.Array
    dropout: jax.Array


def split_keys(seed: int) -> tuple[jax.Array, Keys]:
    """(key for init, keys of a chunk)."""
    root = jax.random.key(seed)
    init, data, dropout = (jax.random.fold_in(root, purpose) for purpose in range(3))
    return init, Keys(data, dropout)


class Round(NamedTuple):
    """A slot's local round, or those of several slots stacked (see `Plan`); `here` is False for padding."""

    here: jax.Array
    client: jax.Array
    count: jax.Array  # type: ignore[assignment]  # hides tuple.count
    lr: jax.Array
    ran_at: jax.Array
    coefficient: jax.Array


class Client:
    """The work of one client, for one model, loss and layout.

    Args:
      work: of a local round.
      importance: kind of score that the server accumulates, None for full models.
      normalize, augment: of its images (`config.data`).
      matmul: what products are computed in, as JAX names it (`precision_name`); None: as JAX does by itself.
    """

    def __init__(
        self,
        model: Model,
        loss: Loss,
        layout: Layout,
        work: LocalWork,
        importance: str | None,
        normalize: str,
        augment: str,
        matmul: str | None = None,
    ) -> None:
        self._model, self._loss, self._layout, self._importance = model, loss, layout, importance
        self._work = dataclasses.replace(work, square_gradients=importance == "client_sq_grad")
        self._normalize, self._augment, self._matmul = normalize, augment, matmul

    def train(self, sent: Any, bits: tuple[jax.Array, ...], turn: Round, data: DeviceData, keys: Keys) -> LocalResult:
        """The local round of one client, from what it was sent under the masks `bits`."""
        work = self._work
        x, y = draw_batches(
            data, keys.data, turn.client, turn.count, work.steps, work.batch_size, self._normalize, self._augment
        )
        key = jax.random.fold_in(jax.random.fold_in(keys.dropout, turn.client), turn.count)
        model = self._model
        if work.scaled:
            rate = jnp.asarray(RATES, jnp.float32)[turn.ran_at]
            model = scaled_model(model, rate, self._present(data, turn.client))
        masks = unpack_masks(self._layout, bits)
        local_round = make_local_round(model, self._loss, self._layout, work)
        with jax.default_matmul_precision(self._matmul):
            return local_round(sent, masks, x, y, turn.lr, key)

    def _present(self, data: DeviceData, client: jax.Array) -> jax.Array:
        """Outputs of labels that a client has; those beyond the data's labels are everybody's."""
        present = data.present[client]
        return jnp.pad(present, (0, self._model.classes - present.shape[-1]), constant_values=True)

    def received(
        self, sent: Any, bits: tuple[jax.Array, ...], turn: Round, result: LocalResult, data: DeviceData
    ) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...], tuple[jax.Array, ...]]:
        """What the server makes of one client's result: (squared gradients, masks, bits of what counts)."""
        masks = unpack_masks(self._layout, bits)
        if self._work.scaled:
            bits = self._without_absent(bits, masks, self._present(data, turn.client))
        squares: tuple[jax.Array, ...] = ()
        if self._importance == "client_sq_grad":
            squares = result.squares
        elif self._importance in ("server_sq_grad", "product"):
            before, after = jax.tree.leaves(sent), jax.tree.leaves(result.params)
            rate = jnp.maximum(turn.lr, 1e-30)  # a rate that has decayed to 0 changes nothing, and must not divide
            squares = tuple(((before[i] - after[i]) / rate) ** 2 for i in self._layout.prunable)
        return squares, masks, bits

    def _without_absent(
        self, bits: tuple[jax.Array, ...], masks: tuple[jax.Array, ...], present: jax.Array
    ) -> tuple[jax.Array, ...]:
        """The output layer's columns of labels that a client lacks do not count (HeteroFL's authors' code)."""
        last = ARCHITECTURES[self._model.name].output
        return tuple(
            pack((mask & present).reshape(-1)) if self._layout.paths[i].startswith(f"{last}/") else b
            for b, mask, i in zip(bits, masks, self._layout.prunable, strict=True)
        )

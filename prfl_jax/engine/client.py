"""One client: its local round, and what the server makes of the result. The engine maps this over slots."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prfl_jax.data.device import DeviceData, draw_batches
from prfl_jax.engine.plan import LocalRound
from prfl_jax.local import LocalResult, LocalWork, make_local_round, make_long_round
from prfl_jax.models.architectures import ARCHITECTURES
from prfl_jax.models.build import Model
from prfl_jax.models.losses import Loss
from prfl_jax.models.scaled import scaled_model
from prfl_jax.robustness.attacks import Attack
from prfl_jax.robustness.update_filter import REJECTED, UpdateFilter
from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.leading import RATES
from prfl_jax.submodel.masks import pack, unpack_masks
from prfl_jax.system.jax_settings import root_key


class Keys(NamedTuple):
    """Keys split from the root seed by purpose."""

    data: jax.Array
    dropout: jax.Array
    attack: jax.Array
    noise: jax.Array


def split_keys(seed: int) -> tuple[jax.Array, Keys]:
    """(key for init, keys of a chunk)."""
    root = root_key(seed)
    init, *keys = (jax.random.fold_in(root, purpose) for purpose in range(5))
    return init, Keys(*keys)


class AcceptedUpdate(NamedTuple):
    """A client's result as the server has it.

    Attributes:
      params: the update as it counts.
      squares: squared gradients of prunable leaves, () where no importance is kept.
      masks, bits: what the client holds, and what of it counts.
      verdict: of the server's check, int8; () without one.
    """

    params: Any
    squares: tuple[jax.Array, ...]
    masks: tuple[jax.Array, ...]
    bits: tuple[jax.Array, ...]
    verdict: Any


class Client:
    """The work of one client, for one model, loss and layout.

    Args:
      work: of a local round.
      importance: kind of score that the server accumulates, None for full models.
      normalize, augment: of its images (`config.data`).
      matmul: what products are computed in, as JAX names it (`precision_name`); None: as JAX does by itself.
      attack: how those lie that do; None: nobody does.
      check: of what arrives; None: it counts as it is.
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
        attack: Attack | None = None,
        check: UpdateFilter | None = None,
    ) -> None:
        self._attack, self._check = attack, check
        self._model, self._loss, self._layout, self._importance = model, loss, layout, importance
        self._work = dataclasses.replace(work, square_gradients=importance == "client_sq_grad")
        self._normalize, self._augment, self._matmul = normalize, augment, matmul

    def train(
        self, sent: Any, bits: tuple[jax.Array, ...], turn: LocalRound, data: DeviceData, keys: Keys, fixed: Any
    ) -> LocalResult:
        """The local round of one client, from what it was sent under the masks `bits`, with the fixed variables."""
        work = self._work
        model = self._model.bound(fixed)
        if work.scaled:
            rate = jnp.asarray(RATES, jnp.float32)[turn.density_pct]
            model = scaled_model(model, rate, self._present(data, turn.client))
        masks, key = unpack_masks(self._layout, bits), _own(keys.dropout, turn)
        parts = (model, self._loss, self._layout, work)
        if work.long:
            first = jnp.asarray(turn.rounds, jnp.int32) * work.steps

            def draw(number: jax.Array) -> tuple[jax.Array, jax.Array]:
                x, y = self._batches(turn.client, first + number, 1, data, keys)
                return x[0], y[0]

            with jax.default_matmul_precision(self._matmul):
                result = make_long_round(*parts)(sent, masks, draw, turn.lr, key)
        else:
            x, y = self._batches(turn.client, turn.rounds, work.steps, data, keys)
            with jax.default_matmul_precision(self._matmul):
                result = make_local_round(*parts)(sent, masks, x, y, turn.lr, key)
        if self._attack is None:
            return result
        malicious, key = data.malicious[turn.client], _own(keys.attack, turn)
        return result._replace(params=self._attack.apply(self._layout, sent, result.params, masks, malicious, key))

    def _batches(
        self, client: jax.Array, count: jax.Array, steps: int, data: DeviceData, keys: Keys
    ) -> tuple[jax.Array, jax.Array]:
        """The batches of a client's `count`-th `steps` steps, with the labels it trains on: `[steps, B, ...]`."""
        size, normalize, augment = self._work.batch_size, self._normalize, self._augment
        x, y = draw_batches(data, keys.data, client, count, steps, size, normalize, augment)
        if self._attack is not None:
            y = self._attack.labels(y, data.malicious[client], data.present.shape[-1])
        return x, y

    def _present(self, data: DeviceData, client: jax.Array) -> jax.Array:
        """Outputs of labels that a client has; those beyond the data's labels are everybody's."""
        present = data.present[client]
        if self._attack is not None:
            present = self._attack.present(present, data.malicious[client])
        return jnp.pad(present, (0, self._model.classes - present.shape[-1]), constant_values=True)

    def received(
        self,
        sent: Any,
        bits: tuple[jax.Array, ...],
        turn: LocalRound,
        result: LocalResult,
        data: DeviceData,
        keys: Keys,
    ) -> AcceptedUpdate:
        """What the server makes of one client's result."""
        masks = unpack_masks(self._layout, bits)
        params, counted = result.params, bits
        verdict: Any = ()
        if self._check is not None:
            params, verdict = self._check(self._layout, sent, params, masks, _own(keys.noise, turn))
        if self._work.scaled:
            counted = self._without_absent(bits, masks, self._present(data, turn.client))
        squares: tuple[jax.Array, ...] = ()
        if self._importance == "client_sq_grad":
            squares = result.squares
        elif self._importance in ("server_sq_grad", "product"):
            before, after = jax.tree.leaves(sent), jax.tree.leaves(params)
            rate = jnp.maximum(turn.lr, 1e-30)  # a rate that has decayed to 0 changes nothing, and must not divide
            squares = tuple(((before[i] - after[i]) / rate) ** 2 for i in self._layout.prunable)
        # what is rejected says nothing of any weight's importance; but with noise nobody may see that it was
        if self._check is not None and not self._check.noise_multiplier and squares:
            taken = verdict != REJECTED
            squares = tuple(jnp.where(taken, s, 0.0) for s in squares)
            masks = tuple(m & taken for m in masks)
        return AcceptedUpdate(params, squares, masks, counted, verdict)

    def _without_absent(
        self, bits: tuple[jax.Array, ...], masks: tuple[jax.Array, ...], present: jax.Array
    ) -> tuple[jax.Array, ...]:
        """The output layer's columns of labels that a client lacks do not count (HeteroFL's authors' code)."""
        last = ARCHITECTURES[self._model.name].output
        return tuple(
            pack((mask & present).reshape(-1)) if self._layout.paths[i].startswith(f"{last}/") else b
            for b, mask, i in zip(bits, masks, self._layout.prunable, strict=True)
        )


def _own(key: jax.Array, turn: LocalRound) -> jax.Array:
    """The key of one round of one client."""
    return jax.random.fold_in(jax.random.fold_in(key, turn.client), turn.rounds)

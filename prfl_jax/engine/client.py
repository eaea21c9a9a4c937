"""`Client`: the device functions of one client: its local round, its attack, and the filter of its update."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prfl_jax.data.device import DeviceData, draw_batches
from prfl_jax.engine.client_memory import ClientMemory, Memories
from prfl_jax.engine.plan import LocalRound
from prfl_jax.local import Batches, LocalInput, LocalResult, LocalWork
from prfl_jax.robustness.attacks import Attack
from prfl_jax.robustness.update_filter import REJECTED, UpdateFilter
from prfl_jax.submodel.masks import pack, put_back, unpack_masks
from prfl_jax.submodel.scores import Importance
from prfl_jax.system.jax_settings import root_key


class Keys(NamedTuple):
    """Keys split from the root seed by purpose."""

    data: jax.Array
    dropout: jax.Array
    attack: jax.Array
    noise: jax.Array

    def of_initial_stage(self) -> Keys:
        """Those of the initial stage (`pruning.initial_steps`).

        A round's place among the draws of data goes by its number of steps, which is another one there.
        """
        return self._replace(data=jax.random.fold_in(self.data, 1))


def split_keys(seed: int) -> tuple[jax.Array, Keys]:
    """(key for init, keys of a chunk)."""
    root = root_key(seed)
    init, *keys = (jax.random.fold_in(root, purpose) for purpose in range(5))
    return init, Keys(*keys)


class Dispatched(NamedTuple):
    """What a client has for its round, or a group of them, stacked.

    Attributes:
      params: the sub-model as sent.
      bits: its masks, packed.
      turn: the round.
      memory: what the client has kept; () for nothing.
      beside: what the server sent beside the model; () for nothing.
      whole: the server's model at the dispatch; () unless the aggregation restores from it what the client lacks.
    """

    params: Any
    bits: tuple[jax.Array, ...]
    turn: LocalRound
    memory: Any = ()
    beside: Any = ()
    whole: Any = ()


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
    """The work of one client; the engine maps `train` and `received` over the slots of its arrays.

    Args:
      memories: what clients keep between their rounds; its task is the same for every client and round.
      work: what a client does in a round.
      importance: how pruning scores are made, None where nothing is pruned.
      normalize, augment: of its samples (`config.data`).
      matmul: what products are computed in, as JAX names it (`precision_name`); None: JAX's default.
      attack: what malicious clients do; None: there are none.
      update_filter: what the server does to each update that arrives; None: nothing.
    """

    def __init__(
        self,
        memories: Memories,
        work: LocalWork,
        importance: Importance | None,
        normalize: str,
        augment: str,
        matmul: str | None = None,
        attack: Attack | None = None,
        update_filter: UpdateFilter | None = None,
    ) -> None:
        self._memories, self._task = memories, memories.task
        self._work, self._importance, self._layout = work, importance, memories.task.layout
        self._normalize, self._augment, self._matmul = normalize, augment, matmul
        self._attack, self._filter = attack, update_filter

    def train(self, sent: Dispatched, data: DeviceData, keys: Keys, fixed: Any) -> tuple[LocalResult, Any]:
        """The local round of one client, with the fixed variables.

        Returns:
          Its update, and what it will have kept once that has arrived (`ClientMemory`; () for nothing).
        """
        task = dataclasses.replace(self._task, model=self._task.model.bound(fixed))
        turn, masks, memories = sent.turn, unpack_masks(self._layout, sent.bits), self._memories
        given = LocalInput(
            params=memories.with_layers(sent.params, sent.memory),
            masks=masks,
            batches=self._batches(turn, data, keys),
            lr=turn.lr,
            key=_own(keys.dropout, turn),
            client=turn.client,
            density_pct=turn.density_pct,
            present=self._present(data, turn.client) if self._work.reads_labels else None,
            steps=turn.steps if self._work.own_steps else None,
            kept=sent.memory.work if memories.any else (),
            beside=sent.beside,
            prunes=turn.prunes,
        )
        with jax.default_matmul_precision(self._matmul):
            result = self._work.round(task, given)
        params = memories.as_sent(result.params, sent.params)
        if self._attack is not None:
            malicious, key = data.malicious[turn.client], _own(keys.attack, turn)
            params = self._attack.apply(self._layout, sent.params, params, masks, malicious, key)
        # malicious clients send no more values than they are charged for
        params, unsent = memories.uploaded(sent.params, params, masks, sent.memory, turn.values_up)
        memory = ClientMemory(result.kept, memories.own_layers(result.params), unsent) if memories.any else ()
        return result._replace(params=params, kept=()), memory

    def _batches(self, turn: LocalRound, data: DeviceData, keys: Keys) -> Batches:
        """The batches of a client's round, with the labels it trains on."""
        steps = self._task.settings.steps

        def one(number: jax.Array) -> tuple[jax.Array, jax.Array]:
            first = jnp.asarray(turn.rounds, jnp.int32) * steps
            x, y = self._draw(turn.client, first + number, 1, data, keys)
            return x[0], y[0]

        return Batches(one=one, all=lambda: self._draw(turn.client, turn.rounds, steps, data, keys))

    def _draw(
        self, client: jax.Array, count: jax.Array, steps: int, data: DeviceData, keys: Keys
    ) -> tuple[jax.Array, jax.Array]:
        """The batches of a client's `count`-th `steps` steps: `[steps, B, ...]`."""
        size, normalize, augment = self._task.settings.batch_size, self._normalize, self._augment
        x, y = draw_batches(data, keys.data, client, count, steps, size, normalize, augment)
        if self._attack is not None:
            y = self._attack.labels(y, data.malicious[client], data.present.shape[-1])
        return x, y

    def _present(self, data: DeviceData, client: jax.Array) -> jax.Array:
        """`[classes]` bool: labels that a client has; outputs beyond the data's labels count as present."""
        present = data.present[client]
        if self._attack is not None:
            present = self._attack.present(present, data.malicious[client])
        return jnp.pad(present, (0, self._task.model.classes - present.shape[-1]), constant_values=True)

    def received(
        self, sent: Dispatched, result: LocalResult, memory: Any, data: DeviceData, keys: Keys
    ) -> AcceptedUpdate:
        """What the server makes of one client's result; `memory` is what the client will have kept."""
        turn, bits = sent.turn, memory.work.bits if self._work.own_masks else sent.bits
        masks = unpack_masks(self._layout, bits)
        params, counted, importance = result.params, bits, self._importance
        verdict: Any = ()
        if self._filter is not None:
            params, verdict = self._filter(self._layout, sent.params, params, masks, _own(keys.noise, turn))
        if self._work.counted is not None:
            present = self._present(data, turn.client) if self._work.reads_labels else None
            some = self._work.counted(self._task, masks, present)
            counted = tuple(
                b if own is mask else pack(own.reshape(-1)) for b, own, mask in zip(bits, some, masks, strict=True)
            )
        squares: tuple[jax.Array, ...] = ()
        if importance is not None and importance.from_clients:
            squares = result.squares
        elif importance is not None and importance.from_updates:
            before, after = jax.tree.leaves(sent.params), jax.tree.leaves(params)
            rate = jnp.maximum(turn.lr, 1e-30)  # a rate that has decayed to 0 changes nothing, and must not divide
            squares = tuple(((before[i] - after[i]) / rate) ** 2 for i in self._layout.prunable)
        # A rejected update adds nothing to any weight's importance. With noise nobody may see that it was rejected.
        if self._filter is not None and not self._filter.noise_multiplier and squares:
            taken = verdict != REJECTED
            squares = tuple(jnp.where(taken, s, 0.0) for s in squares)
            masks = tuple(m & taken for m in masks)
        if sent.whole != ():  # FedMP's R2SP: the recovered sub-model plus the residual model
            params = put_back(self._layout, params, unpack_masks(self._layout, counted), sent.whole)
        return AcceptedUpdate(params, squares, masks, counted, verdict)


def _own(key: jax.Array, turn: LocalRound) -> jax.Array:
    """The key of one round of one client."""
    return jax.random.fold_in(jax.random.fold_in(key, turn.client), turn.rounds)

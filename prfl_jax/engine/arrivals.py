"""The arrival step of a window: trains clients, takes their updates, and enters these into the aggregation."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from prfl_jax.aggregate.kernels import Accumulator, AggregationKernel, Arrivals
from prfl_jax.aggregate.running_sum import along
from prfl_jax.data.device import DeviceData
from prfl_jax.engine.client import AcceptedUpdate, Client, Dispatched, Keys
from prfl_jax.engine.client_memory import Memories
from prfl_jax.engine.groups import SlotGroups
from prfl_jax.engine.placement import Placement
from prfl_jax.engine.plan import LocalRound, Plan
from prfl_jax.engine.state import State, Trained
from prfl_jax.local import LocalResult
from prfl_jax.robustness.update_filter import REJECTED
from prfl_jax.submodel.importance import Squares, add_arrival
from prfl_jax.submodel.masks import apply_masks, unpack_masks
from prfl_jax.system.host_offload import fetch, fetch_all, put, put_all


class ArrivalCarry(NamedTuple):
    """What arrivals change: parts of `State` (`changes` is `Beside.total`), and their losses and verdicts `[m]`."""

    held: Accumulator
    importance: Squares
    clients: Any
    changes: Any
    losses: jax.Array
    verdicts: Any


class ArrivalStep:
    """Trains and takes the slots that a row of the plan lists; each device does so for the slots it holds.

    Args:
      client: the local round, and what the server makes of its result.
      memories: what clients keep between their rounds.
      kernel: of the aggregation.
      groups: in which clients are trained.
      filtered: whether updates get a verdict.
      ahead: whether updates are trained before they arrive (`train_pending`).
      restores: whether `State.sent` has whole models (`Aggregation.restores`).
    """

    def __init__(
        self,
        client: Client,
        memories: Memories,
        kernel: AggregationKernel,
        placement: Placement,
        groups: SlotGroups,
        filtered: bool,
        ahead: bool,
        restores: bool = False,
    ) -> None:
        self._client, self._memories, self._kernel, self._placement = client, memories, kernel, placement
        self._training, self._filtered, self._ahead = groups, filtered, ahead
        self._restores = restores
        # an update that is trained already is taken by itself
        self._taking = SlotGroups(groups.slots, 0) if ahead else groups

    def train_pending(self, state: State, data: DeviceData, now: Plan, keys: Keys) -> Trained:
        """Trains the plan's list of slots, ahead of their arrivals."""

        def take(k: jax.Array, slots: jax.Array, trained: Trained) -> Trained:
            sent, _ = self._sent(state, now, slots)
            result, memory = self._training.over(self._client.train, 1)(sent, data, keys, state.fixed)
            return Trained(
                put_all(trained.models, slots, result.params),
                put(trained.losses, slots, result.loss),
                put_all(trained.memories, slots, memory),
            )

        return self._training.each(now.train, now.train_count, take, state.trained)

    def take(self, state: State, data: DeviceData, now: Plan, keys: Keys) -> tuple[State, jax.Array, Any]:
        """Takes the row's arrivals, training them now unless that is done.

        Returns:
          The state, and losses and verdicts of the arrivals, as in `ChunkOutput`.
        """
        groups, m = self._taking, len(now.arrive)

        def take(k: jax.Array, slots: jax.Array, carry: ArrivalCarry) -> ArrivalCarry:
            sent, here = self._sent(state, now, slots)
            if self._ahead:
                result, memory = self._trained(state, slots)
            else:
                result, memory = groups.over(self._client.train, 1)(sent, data, keys, state.fixed)
            update = groups.over(self._client.received, 3)(sent, result, memory, data, keys)
            importance = add_importance(carry.importance, here, update)
            base = sent.whole if self._restores else sent.params
            arrivals = Arrivals(slots, here, update.params, update.bits, base, sent.turn.coefficient)
            held = self._kernel.add(carry.held, arrivals)
            # the client of a rejected update keeps what it had, as after a round that fails
            taken = here & (update.verdict != REJECTED) if self._filtered else here
            clients = put_all(carry.clients, self._places(sent.turn, taken), memory)
            changes = self._changed(carry.changes, here, sent.memory, memory)
            seen = jax.tree.map(lambda v: jnp.where(here, v, 0), (result.loss, update.verdict))
            losses, verdicts = jax.tree.map(
                lambda row, v: lax.dynamic_update_slice_in_dim(row, jnp.atleast_1d(v), k, 0),
                (carry.losses, carry.verdicts), seen,
            )  # fmt: skip
            return ArrivalCarry(held, importance, clients, changes, losses, verdicts)

        changes = state.beside.total if self._memories.beside else ()
        before = state.total, state.importance, changes
        total, importance, changes = self._own_sums(before)
        losses = jnp.zeros(m + groups.step - 1, jnp.float32)
        verdicts = losses.astype(jnp.int8) if self._filtered else ()
        held = Accumulator(state.buffer, state.buffer_bits, total)
        carry = ArrivalCarry(held, importance, state.clients, changes, losses, verdicts)
        carry = groups.each(now.arrive, now.arrive_count, take, carry)
        total, importance, changes = self._all_sums(before, (carry.held.total, carry.importance, carry.changes))
        buffer, buffer_bits, _ = carry.held
        state = state._replace(buffer=buffer, buffer_bits=buffer_bits, total=total, importance=importance)
        state = state._replace(clients=carry.clients)
        if self._memories.beside:
            state = state._replace(beside=state.beside._replace(total=changes))
        return state, carry.losses[:m], jax.tree.map(lambda row: row[:m], carry.verdicts)

    def _sent(self, state: State, now: Plan, slots: jax.Array) -> tuple[Dispatched, jax.Array]:
        """(what slots have for their rounds, whether they are slots).

        Padding is no slot; it has learning rate 0, which keeps what it computes finite.
        """
        here, ids = slots < self._placement.slots, jnp.minimum(slots, self._placement.slots - 1)
        lr, coefficient = jnp.where(here, now.lr[ids], 0.0), jnp.where(here, now.coefficient[ids], 0.0)
        own = now.density_pct[ids], now.steps[ids], now.values_up[ids], now.prunes[ids]
        turn = LocalRound(slots, now.client[ids], now.count[ids], lr, coefficient, *own)
        params, bits = fetch_all(state.sent, ids, state.params), tuple(b[ids] for b in state.sent_bits)
        places = self._places(turn, jnp.ones_like(here))
        memory = jax.tree.map(lambda stack: fetch(stack, jnp.minimum(places, len(stack) - 1)), state.clients)
        beside = jax.tree.map(lambda stack: fetch(stack, ids), state.beside_sent)
        if not self._restores:
            return Dispatched(params, bits, turn, memory, beside), here
        masked = jax.vmap(self._sub_model) if slots.ndim else self._sub_model
        return Dispatched(masked(params, bits), bits, turn, memory, beside, whole=params), here

    def _sub_model(self, whole: Any, bits: tuple[jax.Array, ...]) -> Any:
        """What one client was sent of a whole model."""
        layout = self._memories.task.layout
        return apply_masks(layout, whole, unpack_masks(layout, bits))

    def _trained(self, state: State, slots: jax.Array) -> tuple[LocalResult, Any]:
        """The results of slots that were trained ahead, and what their clients will keep."""
        ids = jnp.minimum(slots, self._placement.slots - 1)
        models = fetch_all(state.trained.models, ids, state.params)
        memory = jax.tree.map(lambda stack: fetch(stack, ids), state.trained.memories)
        return LocalResult(models, state.trained.losses[ids], ()), memory

    def _places(self, turn: LocalRound, here: jax.Array) -> jax.Array:
        """Where in `State.clients` clients have their places; the number of places for what is not `here`."""
        number = self._memories.clients if self._memories.by_client else self._placement.slots
        return jnp.where(here, turn.client if self._memories.by_client else turn.slot, number)

    def _changed(self, changes: Any, here: jax.Array, before: Any, after: Any) -> Any:
        """`Beside.total` after an arrival, or a group of them; padding adds 0."""
        if not self._memories.beside:
            return changes
        change = self._taking.over(self._memories.change, 2)(before, after)
        change = jax.tree.map(lambda leaf: jnp.where(along(here, leaf), leaf, 0.0), change)
        if here.ndim:
            change = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), change)
        return jax.tree.map(jnp.add, changes, change)

    def _own_sums(self, before: Any) -> Any:
        """Where this device begins to add its arrivals up: at `before`, or at 0 where there are several devices."""
        return before if self._placement.count == 1 else jax.tree.map(jnp.zeros_like, before)

    def _all_sums(self, before: Any, own: Any) -> Any:
        """The sums after all devices have added to them: each has `own`, begun at `_own_sums(before)`."""
        if self._placement.count == 1:
            return own
        return jax.tree.map(jnp.add, before, self._placement.sum(own))


def add_importance(importance: Squares, here: jax.Array, update: AcceptedUpdate) -> Squares:
    """Adds the squared gradients of one arrival, or of a group `[G, ...]`, to the importance scores; padding adds 0."""
    if not update.squares:
        return importance
    squares = tuple(jnp.where(along(here, s), s, 0) for s in update.squares)
    masks = tuple(m & along(here, m) for m in update.masks)
    if here.ndim:
        squares = tuple(jnp.sum(s, axis=0) for s in squares)
        masks = tuple(jnp.sum(m, axis=0, dtype=jnp.int32) for m in masks)
    return add_arrival(importance, squares, masks)

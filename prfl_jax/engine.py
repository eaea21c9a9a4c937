"""The device side: one jitted, buffer-donating call runs a whole chunk of windows.

Clients live stacked as `[M, ...]`. Nothing goes to the host inside a chunk: who
arrives when, with what weight and learning rate, comes as small arrays in a `Plan`.
A client is trained when its update arrives, from the model it was sent; what never
arrives is never computed.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec

from prfl_jax.aggregate import Aggregation
from prfl_jax.aggregate.maskfedavg import add_weighted, fedavg, maskfedavg
from prfl_jax.architectures import ARCHITECTURES
from prfl_jax.data.device import DeviceData, draw_batches
from prfl_jax.devices import ALL, AXIS, OWN, Placement
from prfl_jax.local import LocalWork, make_local_round
from prfl_jax.models.build import Model
from prfl_jax.models.losses import Loss
from prfl_jax.models.scaled import scaled_model
from prfl_jax.plan import Plan
from prfl_jax.submodel.importance import Importance, add_arrival, init_importance
from prfl_jax.submodel.layout import Layout, empty_bits
from prfl_jax.submodel.leading import RATES
from prfl_jax.submodel.masks import apply_masks, full_levels, level_masks, pack, unpack_masks


class State(NamedTuple):
    """Everything on the device that a window changes; a pytree, donated to each chunk.

    Attributes:
      params: the server model W.
      sent: `[M, ...]` the model each client was last sent (w_sent), 0 where masked.
      sent_bits: its masks, packed `[M, ceil(n/8)]` uint8 a prunable leaf.
      buffer: `[M, ...]` the latest client update in each slot (w_{i,n'}); () where the aggregation keeps none.
      buffer_bits: its masks.
      total: the running sum of this window's arrivals; () where the aggregation keeps a buffer.
      importance: accumulators for the next pruning.
      levels: int8 a prunable leaf: the current generation of nested masks.
    """

    params: Any
    sent: Any
    sent_bits: tuple[jax.Array, ...]
    buffer: Any
    buffer_bits: tuple[jax.Array, ...]
    total: Any
    importance: Importance
    levels: tuple[jax.Array, ...]


# Over several devices: what is stacked over clients lies with its client's device (`[D m, ...]`), the rest on each.
STACKED = ("sent", "sent_bits", "buffer", "buffer_bits")
STATE_SPEC = State(**{name: OWN if name in STACKED else ALL for name in State._fields})  # type: ignore[arg-type]
_EACH = PartitionSpec(None, AXIS)
PLAN_SPEC = Plan(**{name: ALL if name in ("close", "server_lr", "keep") else _EACH for name in Plan._fields})


class Keys(NamedTuple):
    """Keys split from the root seed by purpose."""

    data: jax.Array
    dropout: jax.Array


class Members(NamedTuple):
    """The arrivals of a row, `[m]` in order (see `Plan`)."""

    slot: jax.Array
    client: jax.Array
    count: jax.Array  # type: ignore[assignment]  # hides tuple.count
    lr: jax.Array
    ran_at: jax.Array
    coefficient: jax.Array


class Taken(NamedTuple):
    """What arrivals change: parts of `State`, and their losses `[m]`."""

    buffer: Any
    buffer_bits: tuple[jax.Array, ...]
    total: Any
    importance: Importance
    losses: jax.Array


def split_keys(seed: int) -> tuple[jax.Array, Keys]:
    """(key for init, keys of a chunk)."""
    root = jax.random.key(seed)
    init, data, dropout = (jax.random.fold_in(root, purpose) for purpose in range(3))
    return init, Keys(data, dropout)


@dataclasses.dataclass(frozen=True)
class EngineConfig:
    """What a chunk does, besides the plan.

    Args:
      clients: `map` (one arrival after another) or `vmap` (a group of arrivals at once).
      group: arrivals in a group of `vmap`; 0: as many as a device has slots.
      store: type of the models in flight and in the buffer; a client starts from what was stored.
      aggregation: the kernel, and what it needs.
      importance: kind of score to accumulate, None for full models.
    """

    clients: str
    group: int
    store: str
    aggregation: Aggregation
    importance: str | None
    normalize: str
    augment: str
    work: LocalWork


class Engine:
    """Builds the initial `State` and the chunk function for one model, loss and layout.

    Args:
      levels: int8 a prunable leaf, where masks are given by the architecture; None: by pruning, later.
      placement: the clients on their devices; None: all on the default one.
    """

    def __init__(
        self,
        model: Model,
        loss: Loss,
        layout: Layout,
        num_clients: int,
        config: EngineConfig,
        levels: tuple[np.ndarray, ...] | None = None,
        placement: Placement | None = None,
    ) -> None:
        self.model, self.layout, self.config = model, layout, config
        self.placement = placement or Placement(num_clients, tuple(jax.devices()[:1]))
        squares = config.importance == "client_sq_grad"
        self._loss, self._work = loss, dataclasses.replace(config.work, square_gradients=squares)
        self._levels = levels
        takes = (STATE_SPEC, ALL, PLAN_SPEC, ALL, ALL)
        self.run_chunk = self.placement.jit(self.run_rows, takes, (STATE_SPEC, _EACH), donate=(0,))
        self.fedavg_model = self.placement.jit(self._fedavg_model, (ALL, OWN, OWN), ALL)

    def init_state(self, key: jax.Array) -> State:
        """W_0 from `key`; empty slots; every weight in every sub-model."""
        params = self.model.init(key)
        slots = self.placement.count * self.placement.slots
        stack = jax.tree.map(lambda w: jnp.zeros((slots, *w.shape), self.config.store), params)
        bits = tuple(jnp.asarray(b) for b in empty_bits(self.layout, slots))
        sums = self.config.aggregation.kernel == "sum"
        return State(
            params=params,
            sent=stack,
            sent_bits=bits,
            buffer=() if sums else jax.tree.map(jnp.copy, stack),
            buffer_bits=() if sums else jax.tree.map(jnp.copy, bits),
            total=jax.tree.map(jnp.zeros_like, params) if sums else (),
            importance=init_importance(self.layout, self.config.importance),
            levels=full_levels(self.layout) if self._levels is None else tuple(jnp.asarray(v) for v in self._levels),
        )

    # One window: dispatch, arrivals, aggregation. Each device runs this for the slots it holds, 0 to m - 1 of its own.

    def run_rows(
        self, state: State, data: DeviceData, plan: Plan, rows: jax.Array, keys: Keys
    ) -> tuple[State, jax.Array]:
        """Runs the first `rows` rows of `plan`; returns the state and mean training losses `[L, m]`.

        `rows` is a device scalar, so one executable serves every chunk length up to L. Not jitted: `run_chunk` is.
        The plan's counts may be larger than what it lists: padding does nothing (with the axis `vmap`).
        """
        def row(r: jax.Array, carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
            state, losses = carry
            now = jax.tree.map(lambda a: a[r], plan)
            state = self._dispatch(state, now)
            state, row_losses = self._arrivals(state, data, now, keys)
            before = state.params, state.total
            params, total = lax.cond(now.close, self._aggregate, lambda state, now: before, state, now)
            return state._replace(params=params, total=total), losses.at[r].set(row_losses)

        losses = jnp.zeros(plan.arrive.shape, jnp.float32)
        return lax.fori_loop(0, rows, row, (state, losses))

    def _aggregate(self, state: State, now: Plan) -> tuple[Any, Any]:
        """(the next server model, the next running sum)."""
        kernel = self.config.aggregation.kernel
        if kernel == "sum":
            params = jax.tree.map(lambda w, total: now.keep * w + total, state.params, state.total)
            return params, jax.tree.map(jnp.zeros_like, state.total)
        across = self.placement.sum
        if kernel == "fedavg":
            return fedavg(state.params, state.buffer, now.weights, now.server_lr, across), ()
        return maskfedavg(
            self.layout, state.params, state.buffer, state.buffer_bits, now.weights, now.server_lr, across
        ), ()

    def _fedavg_model(self, params: Any, buffer: Any, weights: jax.Array) -> Any:
        """The paper's second server model: the plain mean of the buffer (`weights` by slot)."""
        return fedavg(params, buffer, weights, across=self.placement.sum)

    def _added(self, before: Any, own: Any) -> Any:
        """Shared sums after all devices have added to them: `own` went on from `_start(before)`."""
        if self.placement.count == 1:
            return own
        return jax.tree.map(jnp.add, before, self.placement.sum(own))

    def _start(self, before: Any) -> Any:
        return before if self.placement.count == 1 else jax.tree.map(jnp.zeros_like, before)

    def _dispatch(self, state: State, now: Plan) -> State:
        """Algorithm 3 in place: each dispatched client gets W under its own mask."""

        def send(k: jax.Array, slots: tuple[Any, tuple[jax.Array, ...]]) -> tuple[Any, tuple[jax.Array, ...]]:
            sent, bits = slots
            slot = now.dispatch[k]
            masks = level_masks(state.levels, now.percent[slot])
            sub_model = apply_masks(self.layout, state.params, masks)
            sent = jax.tree.map(lambda stack, w: stack.at[slot].set(w.astype(stack.dtype)), sent, sub_model)
            bits = tuple(b.at[slot].set(pack(m.reshape(-1))) for b, m in zip(bits, masks, strict=True))
            return sent, bits

        sent, bits = lax.fori_loop(0, now.dispatch_count.reshape(()), send, (state.sent, state.sent_bits))
        return state._replace(sent=sent, sent_bits=bits)

    def _client_update(
        self,
        sent: Any,
        bits: tuple[jax.Array, ...],
        data: DeviceData,
        client: jax.Array,
        count: jax.Array,
        lr: jax.Array,
        ran_at: jax.Array,
        keys: Keys,
    ) -> tuple[Any, jax.Array, tuple[jax.Array, ...], tuple[jax.Array, ...], tuple[jax.Array, ...]]:
        """One client's local round: (update, loss, squared gradients, masks, bits of what the server counts)."""
        config = self.config
        x, y = draw_batches(
            data, keys.data, client, count, config.work.steps, config.work.batch_size, config.normalize, config.augment
        )
        masks = unpack_masks(self.layout, bits)
        key = jax.random.fold_in(jax.random.fold_in(keys.dropout, client), count)
        model = self.model
        if config.work.scaled:
            # outputs beyond the data's labels are everybody's
            present = jnp.pad(data.present[client], (0, model.classes - data.present.shape[-1]), constant_values=True)
            model = scaled_model(model, jnp.asarray(RATES, jnp.float32)[ran_at], present)
            bits = self._without_absent(bits, masks, present)
        result = make_local_round(model, self._loss, self.layout, self._work)(sent, masks, x, y, lr, key)
        squares: tuple[jax.Array, ...] = ()
        if config.importance == "client_sq_grad":
            squares = result.squares
        elif config.importance in ("server_sq_grad", "product"):
            before, after = jax.tree.leaves(sent), jax.tree.leaves(result.params)
            rate = jnp.maximum(lr, 1e-30)  # a learning rate that has decayed to 0 changes nothing, and must not divide
            squares = tuple(((before[i] - after[i]) / rate) ** 2 for i in self.layout.prunable)
        return result.params, result.loss, squares, masks, bits

    def _without_absent(
        self, bits: tuple[jax.Array, ...], masks: tuple[jax.Array, ...], present: jax.Array
    ) -> tuple[jax.Array, ...]:
        """The output layer's columns of labels that a client lacks do not count (HeteroFL's authors' code)."""
        last = ARCHITECTURES[self.model.name].output
        return tuple(
            pack((mask & present).reshape(-1)) if self.layout.paths[i].startswith(f"{last}/") else b
            for b, mask, i in zip(bits, masks, self.layout.prunable, strict=True)
        )

    def _arrivals(self, state: State, data: DeviceData, now: Plan, keys: Keys) -> tuple[State, jax.Array]:
        """Trains who arrives in this row, a group at a time; groups beyond the last arrival are not run."""
        slots = self.placement.slots
        size = min(self.config.group or slots, slots)
        take = self._take_one if self.config.clients == "map" else functools.partial(self._take_group, size)
        size = 1 if self.config.clients == "map" else size
        members = Members(now.arrive, now.client, now.count, now.lr, now.ran_at, now.coefficient)
        padding = -slots % size
        members = jax.tree.map(lambda values: jnp.pad(values, (0, padding)), members)
        members = members._replace(slot=members.slot.at[slots:].set(slots))
        number = now.arrive_count.reshape(())
        total, importance = self._start((state.total, state.importance))
        losses = jnp.zeros(slots + padding, jnp.float32)
        taken = Taken(state.buffer, state.buffer_bits, total, importance, losses)
        taken = lax.fori_loop(
            0, -(-number // size), lambda g, taken: take(g, members, state, data, keys, taken), taken
        )
        total, importance = self._added((state.total, state.importance), (taken.total, taken.importance))
        state = state._replace(
            buffer=taken.buffer, buffer_bits=taken.buffer_bits, total=total, importance=importance
        )
        return state, taken.losses[:slots]

    def _take_one(
        self, k: jax.Array, members: Members, state: State, data: DeviceData, keys: Keys, taken: Taken
    ) -> Taken:
        """The k-th arrival."""
        slot = members.slot[k]
        sent = jax.tree.map(lambda stack, w: stack[slot].astype(w.dtype), state.sent, state.params)
        bits = tuple(b[slot] for b in state.sent_bits)
        update, loss, squares, masks, bits = self._client_update(
            sent, bits, data, members.client[k], members.count[k], members.lr[k], members.ran_at[k], keys
        )
        if self.config.aggregation.kernel == "sum":
            summand, c = self._summand(update, sent), members.coefficient[k]
            taken = taken._replace(total=jax.tree.map(lambda t, x: t + c * x, taken.total, summand))
        else:
            taken = taken._replace(
                buffer=jax.tree.map(lambda stack, w: stack.at[slot].set(w.astype(stack.dtype)), taken.buffer, update),
                buffer_bits=tuple(b.at[slot].set(new) for b, new in zip(taken.buffer_bits, bits, strict=True)),
            )
        if squares:
            taken = taken._replace(importance=add_arrival(taken.importance, squares, masks))
        return taken._replace(losses=taken.losses.at[k].set(loss))

    def _take_group(
        self,
        size: int,
        g: jax.Array,
        members: Members,
        state: State,
        data: DeviceData,
        keys: Keys,
        taken: Taken,
    ) -> Taken:
        """The g-th group of `size` arrivals, at once; what the last one lacks is computed and dropped."""
        slots = self.placement.slots
        own = jax.tree.map(lambda values: lax.dynamic_slice_in_dim(values, g * size, size), members)
        here = own.slot < slots  # the rest is padding
        ids = jnp.minimum(own.slot, slots - 1)
        sent = jax.tree.map(lambda stack, w: stack[ids].astype(w.dtype), state.sent, state.params)
        bits = tuple(b[ids] for b in state.sent_bits)
        updates, losses, squares, masks, bits = jax.vmap(self._client_update, in_axes=(0, 0, None, 0, 0, 0, 0, None))(
            sent, bits, data, own.client, own.count, own.lr, own.ran_at, keys
        )

        def put(stack: jax.Array, new: jax.Array) -> jax.Array:
            return stack.at[own.slot].set(new.astype(stack.dtype), mode="drop")

        if squares:
            present = [here.reshape(-1, *([1] * (m.ndim - 1))) for m in masks]
            importance = Importance(
                tuple(
                    t + jnp.sum(jnp.where(p, s, 0), axis=0)
                    for t, s, p in zip(taken.importance.total, squares, present, strict=True)
                ),
                tuple(
                    h + jnp.sum(m & p, axis=0, dtype=jnp.int32)
                    for h, m, p in zip(taken.importance.held, masks, present, strict=True)
                ),
            )
            taken = taken._replace(importance=importance)
        if self.config.aggregation.kernel == "sum":
            summands = self._summand(updates, sent)  # padding has coefficient 0, and rate 0, which keeps it finite
            taken = taken._replace(total=add_weighted(taken.total, summands, own.coefficient))
        else:
            taken = taken._replace(
                buffer=jax.tree.map(put, taken.buffer, updates),
                buffer_bits=tuple(put(b, new) for b, new in zip(taken.buffer_bits, bits, strict=True)),
            )
        losses = jnp.where(here, losses, 0.0)
        return taken._replace(losses=lax.dynamic_update_slice_in_dim(taken.losses, losses, g * size, 0))

    def _summand(self, update: Any, sent: Any) -> Any:
        """What the kernel `sum` adds of one client, or of clients stacked alike."""
        return jax.tree.map(jnp.subtract, update, sent) if self.config.aggregation.updates else update

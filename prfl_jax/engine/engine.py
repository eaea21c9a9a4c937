"""The device side: one jitted, buffer-donating call runs a whole chunk of windows.

Clients live stacked as `[M, ...]`. Nothing goes to the host inside a chunk: who
arrives when, with what weight and learning rate, comes as small arrays in a `Plan`.
A client is trained from the model it was sent, but not before its update is needed:
when it arrives (what never arrives is never computed), or together with everybody
else who is in flight, so that a large device has enough to do where few arrive at a
time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from prfl_jax.aggregate import Aggregation
from prfl_jax.aggregate.kernels import kernel_at_once
from prfl_jax.aggregate.maskfedavg import add_weighted, fedavg, maskfedavg
from prfl_jax.aggregate.stacked import Held
from prfl_jax.data.device import DeviceData
from prfl_jax.engine.client import AcceptedUpdate, Client, Keys, Round
from prfl_jax.engine.placement import ALL, AXIS, OWN, Placement
from prfl_jax.engine.plan import Plan
from prfl_jax.local import LocalResult, LocalSettings, LocalTask, LocalWork
from prfl_jax.models.build import Model
from prfl_jax.models.losses import Loss
from prfl_jax.robustness.attacks import Attack
from prfl_jax.robustness.update_filter import UpdateFilter
from prfl_jax.submodel.importance import Squares, add_arrival, init_importance
from prfl_jax.submodel.layout import Layout, empty_bits
from prfl_jax.submodel.masks import apply_masks, full_levels, level_masks, pack
from prfl_jax.submodel.rule import Submodels
from prfl_jax.submodel.scores import Importance
from prfl_jax.system.host_offload import fetch_all, host_memory, put, put_all


class Trained(NamedTuple):
    """Updates that wait for their arrival: models `[M, ...]`, mean training losses `[M]`."""

    models: Any
    losses: jax.Array


class State(NamedTuple):
    """Everything on the device that a window changes; a pytree, donated to each chunk.

    Attributes:
      params: the server model W.
      sent: `[M, ...]` the model each client was last sent (w_sent), 0 where masked.
      sent_bits: its masks, packed `[M, ceil(n/8)]` uint8 a prunable leaf.
      buffer: `[M, ...]` the latest client update in each slot (w_{i,n'}); () where the aggregation keeps none.
      buffer_bits: its masks.
      total: the running sum of this window's arrivals; () where the aggregation keeps a buffer.
      trained: the updates of slots in flight, if they are trained ahead of their arrivals; else ().
      importance: accumulators for the next pruning.
      levels: int8 a prunable leaf: the current generation of nested masks.
      fixed: the model's variables that are not trained, the same for everybody; {} where there are none.
    """

    params: Any
    sent: Any
    sent_bits: tuple[jax.Array, ...]
    buffer: Any
    buffer_bits: tuple[jax.Array, ...]
    total: Any
    trained: Any
    importance: Squares
    levels: tuple[jax.Array, ...]
    fixed: Any


HOST_GROUP = 8  # a group has all its models on the device at once

# Over several devices: what is stacked over clients lies with its client's device (`[D m, ...]`), the rest on each.
STACKED = ("sent", "sent_bits", "buffer", "buffer_bits", "trained")
STATE_SPEC = State(**{name: OWN if name in STACKED else ALL for name in State._fields})  # type: ignore[arg-type]
_EACH = PartitionSpec(None, AXIS)
PLAN_SPEC = Plan(**{name: ALL if name in ("close", "server_lr", "keep") else _EACH for name in Plan._fields})


class ChunkOutput(NamedTuple):
    """What a chunk tells of its L rows.

    Attributes:
      losses: `[L, m]` mean training loss of each arrival, in their order.
      verdicts: `[L, m]` int8, what the server's check made of it; () without one.
      kept: `[L]` int32, weights that kept their old value at the close for lack of holders; () unless the kernel tells.
    """

    losses: Any
    verdicts: Any = ()
    kept: Any = ()


OUTPUT_SPEC = ChunkOutput(_EACH, _EACH, ALL)


class ArrivalCarry(NamedTuple):
    """What arrivals change: parts of `State`, and their losses and verdicts `[m]`."""

    buffer: Any
    buffer_bits: tuple[jax.Array, ...]
    total: Any
    importance: Squares
    losses: jax.Array
    verdicts: Any


@dataclasses.dataclass(frozen=True)
class EngineConfig:
    """What a chunk does, besides the plan.

    Args:
      clients: `map` (trained one after another) or `vmap` (a group at once).
      train: `arrival` (each as it arrives) or `pending` (when one arrives, all that are in flight and not trained yet).
      group: clients in a group of `vmap`; 0: as many as a device has slots, or `HOST_GROUP` of models with the host.
      store: type of the models in flight and in the buffer; a client starts from what was stored. Updates trained
        ahead of their arrival are kept as they are.
      models: `device` or `host`, where those lie.
      aggregation: the kernel, and what it needs.
      importance: how pruning scores are made, None where nothing is pruned.
      work, local: what a client does in a round, and the settings of a round.
      matmul, attack, update_filter: as for `Client`.
      byzantine: f, how many clients may lie.
    """

    clients: str
    train: str
    group: int
    store: str
    models: str
    aggregation: Aggregation
    importance: Importance | None
    normalize: str
    augment: str
    work: LocalWork
    local: LocalSettings
    matmul: str | None = None
    attack: Attack | None = None
    update_filter: UpdateFilter | None = None
    byzantine: int = 0


class Engine:
    """Builds the initial `State` and the chunk function for one model, loss and layout.

    Args:
      submodels: levels and masks of the sub-models.
      placement: the clients on their devices; None: all on the default one.
    """

    def __init__(
        self,
        model: Model,
        loss: Loss,
        layout: Layout,
        num_clients: int,
        config: EngineConfig,
        submodels: Submodels,
        placement: Placement | None = None,
    ) -> None:
        self.model, self.layout, self.config = model, layout, config
        self.placement = placement or Placement(num_clients, tuple(jax.devices()[:1]))
        self._ahead, self._submodels = config.train == "pending", submodels
        if self._ahead and config.local.square_gradients:
            raise ValueError("squared gradients of clients are kept only as they arrive")
        self._client = Client(
            LocalTask(model, loss, layout, config.local, submodels.levels),
            config.work, config.importance, config.normalize, config.augment, config.matmul,
            config.attack, config.update_filter,
        )  # fmt: skip
        self._kernel_at_once = kernel_at_once(config.aggregation)
        self._tells_kept = config.aggregation.robust
        self.out_shardings = self._out_shardings() if config.models == "host" else None
        takes = (STATE_SPEC, ALL, PLAN_SPEC, ALL, ALL)
        out_shardings = self.out_shardings and (self.out_shardings, None)
        self.run_chunk = self.placement.jit(
            self.run_rows, takes, (STATE_SPEC, OUTPUT_SPEC), donate=(0,), out_shardings=out_shardings
        )
        self.fedavg_model = self.placement.jit(self._fedavg_model, (ALL, OWN, OWN), ALL)

    def _out_shardings(self) -> Any:
        """Where the state's parts lie, some of them with the host: shardings, None for the device."""
        host = host_memory(self.placement.devices[0])
        everywhere: dict[str, Any] = dict.fromkeys(State._fields)
        trained = Trained(host, None) if self._ahead else None  # type: ignore[arg-type]
        return State(**{**everywhere, "sent": host, "buffer": host, "trained": trained})

    def init_state(self, key: jax.Array) -> State:
        """W_0 from `key`; empty slots; every weight in every sub-model."""
        params, given = self.model.init(key), self._submodels.levels
        slots = self.placement.count * self.placement.slots
        stack = jax.tree.map(lambda w: jnp.zeros((slots, *w.shape), self.config.store), params)
        bits = empty_bits(self.layout, slots)
        sums = self.config.aggregation.kernel == "sum"
        return State(
            params=params,
            sent=stack,
            sent_bits=bits,
            buffer=() if sums else jax.tree.map(jnp.copy, stack),
            buffer_bits=() if sums else jax.tree.map(jnp.copy, bits),
            total=jax.tree.map(jnp.zeros_like, params) if sums else (),
            trained=Trained(self._updates(params, slots), jnp.zeros(slots)) if self._ahead else (),
            importance=init_importance(self.layout, self.config.importance),
            levels=full_levels(self.layout) if given is None else tuple(jnp.asarray(level) for level in given),
            fixed=self.model.fixed(key),
        )

    @staticmethod
    def _updates(params: Any, slots: int) -> Any:
        """Room for updates as they were trained: what they add up to must not depend on when that was."""
        return jax.tree.map(lambda w: jnp.zeros((slots, *w.shape), w.dtype), params)

    # One window: dispatch, arrivals, aggregation. Each device runs this for the slots it holds, 0 to m - 1 of its own.

    def run_rows(
        self, state: State, data: DeviceData, plan: Plan, rows: jax.Array, keys: Keys
    ) -> tuple[State, ChunkOutput]:
        """Runs the first `rows` rows of `plan`; returns the state and what was seen in them.

        `rows` is a device scalar, so one executable serves every chunk length up to L. Not jitted: `run_chunk` is.
        The plan's counts may be larger than what it lists: padding does nothing.
        """

        def row(r: jax.Array, carry: tuple[State, ChunkOutput]) -> tuple[State, ChunkOutput]:
            state, seen = carry
            now = jax.tree.map(lambda a: a[r], plan)
            state = self._dispatch(state, now)
            if self._ahead:
                state = state._replace(trained=self._train_pending(state, data, now, keys))
            state, losses, verdicts = self._arrivals(state, data, now, keys)
            before = state.params, state.total, jax.tree.map(lambda all_rows: jnp.zeros((), jnp.int32), seen.kept)
            params, total, kept = lax.cond(now.close, self._aggregate, lambda state, now: before, state, now)
            here = ChunkOutput(losses, verdicts, kept)
            if self._submodels.advance is not None:
                levels = lax.cond(now.close, self._submodels.advance, lambda levels: levels, state.levels)
                state = state._replace(levels=levels)
            return state._replace(params=params, total=total), jax.tree.map(lambda a, v: a.at[r].set(v), seen, here)

        shape = plan.arrive.shape
        seen = ChunkOutput(
            jnp.zeros(shape, jnp.float32),
            () if self.config.update_filter is None else jnp.zeros(shape, jnp.int8),
            jnp.zeros(shape[0], jnp.int32) if self._tells_kept else (),
        )
        return lax.fori_loop(0, rows, row, (state, seen))

    def _aggregate(self, state: State, now: Plan) -> tuple[Any, Any, Any]:
        """(the next server model, the next running sum, weights that stayed)."""
        aggregation, across = self.config.aggregation, self.placement.sum
        kernel = aggregation.kernel
        if kernel == "sum":
            params = jax.tree.map(lambda w, total: now.keep * w + total, state.params, state.total)
            return params, jax.tree.map(jnp.zeros_like, state.total), ()
        if kernel == "fedavg":
            return fedavg(state.params, state.buffer, now.weights, now.server_lr, across), (), ()
        if kernel == "maskfedavg":
            masked = maskfedavg(
                self.layout, state.params, state.buffer, state.buffer_bits, now.weights, now.server_lr, across
            )
            return masked, (), ()
        assert self._kernel_at_once is not None
        models, bits, weights = self.placement.gather((state.buffer, state.buffer_bits, now.weights))
        models = jax.tree.map(lambda stack, w: stack.astype(w.dtype), models, state.params)
        held = Held(self.layout, state.params, models, bits, weights, now.server_lr, self.config.byzantine)
        result = self._kernel_at_once(held)
        return (result.params, (), result.kept) if self._tells_kept else (result, (), ())

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

        leaves, make_masks = jax.tree.leaves(state.params), self._submodels.masks or _masks_by_level
        weights = tuple(leaves[i] for i in self.layout.prunable)

        def send(k: jax.Array, slots: tuple[Any, tuple[jax.Array, ...]]) -> tuple[Any, tuple[jax.Array, ...]]:
            sent, bits = slots
            slot = now.dispatch[k]
            masks = make_masks(state.levels, weights, now.percent[slot])
            sub_model = apply_masks(self.layout, state.params, masks)
            sent = put_all(sent, slot, sub_model)
            bits = tuple(b.at[slot].set(pack(m.reshape(-1))) for b, m in zip(bits, masks, strict=True))
            return sent, bits

        sent, bits = lax.fori_loop(0, now.dispatch_count.reshape(()), send, (state.sent, state.sent_bits))
        return state._replace(sent=sent, sent_bits=bits)

    # Slots are taken from a list of the plan: `size` of them at once, or, with 0, one after another.

    def _size(self) -> int:
        """Slots that are trained at once."""
        config = self.config
        return 0 if config.clients == "map" else at_once(config.group, self.placement.slots, config.models)

    def _each(self, listed: jax.Array, count: jax.Array, size: int, take: Callable[..., Any], start: Any) -> Any:
        """`take(k, slots, carry)` for the slots from the k-th of a list `[m]` on, until `count` are taken.

        The last group is filled up with m, which is no slot.
        """
        step = max(1, size)
        listed = jnp.pad(listed, (0, -len(listed) % step), constant_values=self.placement.slots)

        def turn(g: jax.Array, carry: Any) -> Any:
            k = g * step
            return take(k, lax.dynamic_slice_in_dim(listed, k, size) if size else listed[k], carry)

        return lax.fori_loop(0, -(-count.reshape(()) // step), turn, start)

    def _held(self, state: State, now: Plan, slots: jax.Array) -> tuple[Any, tuple[jax.Array, ...], Round]:
        """(what slots were sent, its masks, their rounds); padding has rate 0, which keeps it finite."""
        here, ids = slots < self.placement.slots, jnp.minimum(slots, self.placement.slots - 1)
        lr, coefficient = jnp.where(here, now.lr[ids], 0.0), jnp.where(here, now.coefficient[ids], 0.0)
        turn = Round(here, now.client[ids], now.count[ids], lr, now.density_pct[ids], coefficient)
        sent = fetch_all(state.sent, ids, state.params)
        return sent, tuple(b[ids] for b in state.sent_bits), turn

    def _train_pending(self, state: State, data: DeviceData, now: Plan, keys: Keys) -> Trained:
        """Trains the plan's list of slots, ahead of their arrivals."""
        size = self._size()

        def take(k: jax.Array, slots: jax.Array, trained: Trained) -> Trained:
            result = _over(size, self._client.train, 3)(*self._held(state, now, slots), data, keys, state.fixed)
            return Trained(put_all(trained.models, slots, result.params), put(trained.losses, slots, result.loss))

        return self._each(now.train, now.train_count, size, take, state.trained)

    def _arrivals(self, state: State, data: DeviceData, now: Plan, keys: Keys) -> tuple[State, jax.Array, Any]:
        """Takes who arrives in this row, training them now if that is not done; what is trained needs no groups.

        Returns:
          The state, and losses and verdicts of the arrivals, as in `ChunkOutput`.
        """
        size = 0 if self._ahead else self._size()

        def take(k: jax.Array, slots: jax.Array, taken: ArrivalCarry) -> ArrivalCarry:
            sent, bits, turn = self._held(state, now, slots)
            if self._ahead:
                ids = jnp.minimum(slots, self.placement.slots - 1)
                models = fetch_all(state.trained.models, ids, state.params)
                result = LocalResult(models, state.trained.losses[ids], ())
            else:
                result = _over(size, self._client.train, 3)(sent, bits, turn, data, keys, state.fixed)
            got = _over(size, self._client.received, 4)(sent, bits, turn, result, data, keys)
            taken = self._added_up(taken, turn, sent, got)
            if self.config.aggregation.kernel != "sum":
                taken = taken._replace(
                    buffer=put_all(taken.buffer, slots, got.params),
                    buffer_bits=put_all(taken.buffer_bits, slots, got.bits),
                )
            told = jax.tree.map(lambda v: jnp.where(turn.here, v, 0), (result.loss, got.verdict))
            losses, verdicts = jax.tree.map(
                lambda row, v: lax.dynamic_update_slice_in_dim(row, jnp.atleast_1d(v), k, 0),
                (taken.losses, taken.verdicts), told,
            )  # fmt: skip
            return taken._replace(losses=losses, verdicts=verdicts)

        total, importance = self._start((state.total, state.importance))
        losses = jnp.zeros(len(now.arrive) + max(1, size) - 1, jnp.float32)
        verdicts = () if self.config.update_filter is None else losses.astype(jnp.int8)
        taken = ArrivalCarry(state.buffer, state.buffer_bits, total, importance, losses, verdicts)
        taken = self._each(now.arrive, now.arrive_count, size, take, taken)
        total, importance = self._added((state.total, state.importance), (taken.total, taken.importance))
        state = state._replace(buffer=taken.buffer, buffer_bits=taken.buffer_bits, total=total, importance=importance)
        m = len(now.arrive)
        return state, taken.losses[:m], jax.tree.map(lambda row: row[:m], taken.verdicts)

    def _added_up(self, taken: ArrivalCarry, turn: Round, sent: Any, got: AcceptedUpdate) -> ArrivalCarry:
        """The sums over arrivals, one arrival or a group further; padding adds nothing."""
        one = turn.here.ndim == 0
        if got.squares:
            squares = tuple(jnp.where(_along(turn.here, s), s, 0) for s in got.squares)
            masks = tuple(m & _along(turn.here, m) for m in got.masks)
            if not one:
                squares = tuple(jnp.sum(s, axis=0) for s in squares)
                masks = tuple(jnp.sum(m, axis=0, dtype=jnp.int32) for m in masks)
            taken = taken._replace(importance=add_arrival(taken.importance, squares, masks))
        if self.config.aggregation.kernel == "sum":
            summand, c = self._summand(got.params, sent), turn.coefficient
            summand = jax.tree.map(lambda x: jnp.where(_along(turn.here, x), x, 0), summand)
            if one:
                summand, c = jax.tree.map(lambda x: x[None], summand), c[None]
            taken = taken._replace(total=add_weighted(taken.total, summand, c))
        return taken

    def _summand(self, update: Any, sent: Any) -> Any:
        """What the kernel `sum` adds of one client, or of clients stacked alike."""
        return jax.tree.map(jnp.subtract, update, sent) if self.config.aggregation.updates else update


def at_once(group: int, slots: int, models: str) -> int:
    """How many clients `vmap` trains at once (`EngineConfig.group`)."""
    return min(group or (HOST_GROUP if models == "host" else slots), slots)


def _over(size: int, function: Callable[..., Any], own: int) -> Callable[..., Any]:
    """A method of `Client` as it is, or for `size` clients at once; its first `own` arguments are then stacked."""

    def stacked(*args: Any) -> Any:
        return jax.vmap(function, in_axes=[0 if k < own else None for k in range(len(args))])(*args)

    return stacked if size else function


def _masks_by_level(levels: tuple[jax.Array, ...], weights: Any, percent: jax.Array) -> tuple[jax.Array, ...]:
    """The masks of a client of that density, from levels alone."""
    return level_masks(levels, percent)


def _along(flags: jax.Array, values: jax.Array) -> jax.Array:
    """Flags of one client or of several, to be broadcast over their values."""
    return flags.reshape(*flags.shape, *[1] * (values.ndim - flags.ndim))

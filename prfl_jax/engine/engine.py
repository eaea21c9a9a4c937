"""`Engine`: runs a whole chunk of windows in one jitted call, whose state buffers are donated.

Clients are stacked as `[S, ...]`. Nothing goes to the host inside a chunk: which client arrives when, with what weight
and learning rate, comes as small arrays in a `Plan`. A client is trained from the model it was sent, but not before its
update is needed: when it arrives (an update that never arrives is never computed), or together with all other clients
in flight, so that a large device has enough to do where few arrive at a time.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from prfl_jax.aggregate import Aggregation
from prfl_jax.aggregate.holders import TellsHeld
from prfl_jax.aggregate.kernels import Accumulator, CloseInputs, ServerStep
from prfl_jax.aggregate.maskfedavg import fedavg
from prfl_jax.aggregate.server_step import ServerStepRule, server_step
from prfl_jax.data.device import DeviceData
from prfl_jax.engine.arrivals import ArrivalStep
from prfl_jax.engine.client import Client, Keys
from prfl_jax.engine.client_memory import Memories, stacked
from prfl_jax.engine.groups import SlotGroups
from prfl_jax.engine.placement import ALL, OWN, Placement
from prfl_jax.engine.plan import Plan
from prfl_jax.engine.state import OUTPUT_SPEC, PLAN_SPEC, STACKED, STATE_SPEC, ChunkOutput, State, Trained
from prfl_jax.local import LocalSettings, LocalTask, LocalWork, find_client_state
from prfl_jax.models.build import Model
from prfl_jax.models.losses import Loss
from prfl_jax.models.variables import split_state, with_state
from prfl_jax.robustness.attacks import Attack
from prfl_jax.robustness.update_filter import UpdateFilter
from prfl_jax.submodel.importance import init_importance
from prfl_jax.submodel.layout import Layout, empty_bits
from prfl_jax.submodel.masks import apply_masks, full_levels, level_masks, pack
from prfl_jax.submodel.rule import Submodels
from prfl_jax.submodel.scores import Importance
from prfl_jax.system import accelerator
from prfl_jax.system.host_offload import host_memory, put_all
from prfl_jax.transport import WHOLE, Upload

__all__ = ["PLAN_SPEC", "STACKED", "STATE_SPEC", "ChunkOutput", "Engine", "EngineConfig", "State", "Trained"]


@dataclasses.dataclass(frozen=True)
class EngineConfig:
    """What a chunk does, besides the plan.

    Args:
      train: `arrival` (each as it arrives) or `pending` (when one arrives, all that are in flight and not trained yet).
      group: clients that are trained at once (`group_size`); 0: one after another, under `map`.
      store: type of the models in flight and in the buffer; a client starts from what was stored. Updates trained
        ahead of their arrival are kept as they are.
      models: `device` or `host`, whose memory those are in.
      aggregation: how arrivals become the next server model.
      importance: how pruning scores are made, None where nothing is pruned.
      work, local: what a client does in a round, and the settings of a round.
      normalize, augment, matmul, attack, update_filter: as for `Client`.
      byzantine: f, how many clients may be malicious.
      optimizer: how the server steps towards the aggregate; None: W becomes it.
      stays: paths of leaves that no client sends (`Memories`).
      personal: whether each client keeps its own values of those leaves.
      cohort_of: how many clients there are in all where slots are given out anew; 0: each has a slot of its own.
      upload: which part of their updates clients send.
    """

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
    optimizer: ServerStepRule | None = None
    stays: frozenset[str] = frozenset()
    personal: bool = False
    cohort_of: int = 0
    upload: Upload = WHOLE


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
        self.placement = placement or Placement(num_clients, accelerator.devices()[:1])
        self._ahead, self._submodels = config.train == "pending", submodels
        if self._ahead and (config.local.square_gradients or config.local.sum_gradients):
            raise ValueError("squared gradients of clients are kept only as they arrive")
        task = LocalTask(model, loss, layout, config.local, submodels.levels)
        self._memories = Memories(
            task, find_client_state(config.work, config.local), config.stays, config.personal,
            config.cohort_of or num_clients, bool(config.cohort_of), config.upload,
        )  # fmt: skip
        client = Client(
            self._memories, config.work, config.importance, config.normalize, config.augment, config.matmul,
            config.attack, config.update_filter,
        )  # fmt: skip
        kernel = config.aggregation.device
        self._kernel = kernel if config.optimizer is None else TellsHeld(kernel)
        slots = self.placement.slots
        groups = SlotGroups(slots, config.group)
        filtered = config.update_filter is not None
        self._arrivals = ArrivalStep(
            client, self._memories, self._kernel, self.placement, groups, filtered, self._ahead,
            config.aggregation.restores,
        )  # fmt: skip
        self.out_shardings = self._out_shardings() if config.models == "host" else None
        takes = (STATE_SPEC, ALL, PLAN_SPEC, ALL, ALL)
        out_shardings = self.out_shardings and (self.out_shardings, None)
        self.run_chunk = self.placement.jit(
            self.run_rows, takes, (STATE_SPEC, OUTPUT_SPEC), donate=(0,), out_shardings=out_shardings
        )
        self.fedavg_model = self.placement.jit(self._fedavg_model, (ALL, OWN, OWN), ALL)

    def _out_shardings(self) -> Any:
        """Shardings of the state's parts that are kept in the host's memory; None for parts on the device."""
        host = host_memory(self.placement.devices[0])
        everywhere: dict[str, Any] = dict.fromkeys(State._fields)
        trained = Trained(host, None, host) if self._ahead else None  # type: ignore[arg-type]
        stacks = dict.fromkeys(("sent", "buffer", "clients", "beside_sent"), host)
        return State(**{**everywhere, **stacks, "trained": trained})

    def init_state(self, key: jax.Array) -> State:
        """W_0 from `key`; empty slots; every weight in every sub-model."""
        params, given = self.model.init(key), self._submodels.levels
        slots = self.placement.count * self.placement.slots
        stack = jax.tree.map(lambda w: jnp.zeros((slots, *w.shape), self.config.store), params)
        bits = empty_bits(self.layout, slots)
        held, beside = self._kernel.init(params, stack, bits), self._memories.init_beside(params)
        return State(
            params=params,
            sent=stack,
            sent_bits=bits,
            buffer=held.buffer,
            buffer_bits=held.buffer_bits,
            total=held.total,
            trained=self._untrained(params, slots) if self._ahead else (),
            importance=init_importance(self.layout, self.config.importance),
            levels=full_levels(self.layout) if given is None else tuple(jnp.asarray(level) for level in given),
            fixed=self.model.fixed(key),
            optimizer=() if self.config.optimizer is None else self.config.optimizer.init(params),
            clients=self._memories.init_all(params, slots),
            beside=beside,
            beside_sent=stacked(beside.value, slots) if self._memories.beside else (),
        )

    def _untrained(self, params: Any, slots: int) -> Trained:
        """Room for updates in the type they were trained in, so that their sum does not depend on when that was."""
        models = jax.tree.map(lambda w: jnp.zeros((slots, *w.shape), w.dtype), params)
        memories = stacked(self._memories.init(params), slots) if self._memories.any else ()
        return Trained(models, jnp.zeros(slots), memories)

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
                state = state._replace(trained=self._arrivals.train_pending(state, data, now, keys))
            state, losses, verdicts = self._arrivals.take(state, data, now, keys)
            nothing_kept = jax.tree.map(lambda all_rows: jnp.zeros((), jnp.int32), seen.kept)
            before = ServerStep(state.params, state.total, nothing_kept), state.optimizer, state.beside
            step, optimizer, beside = lax.cond(now.close, self._close, lambda state, now: before, state, now)
            here = ChunkOutput(losses, verdicts, step.kept)
            if self._submodels.advance is not None:
                levels = lax.cond(now.close, self._submodels.advance, lambda levels: levels, state.levels)
                state = state._replace(levels=levels)
            state = state._replace(params=step.params, total=step.total, optimizer=optimizer, beside=beside)
            return state, jax.tree.map(lambda a, v: a.at[r].set(v), seen, here)

        shape = plan.arrive.shape
        seen = ChunkOutput(
            jnp.zeros(shape, jnp.float32),
            () if self.config.update_filter is None else jnp.zeros(shape, jnp.int8),
            jnp.zeros(shape[0], jnp.int32) if self._kernel.counts_kept else (),
        )
        return lax.fori_loop(0, rows, row, (state, seen))

    def _close(self, state: State, now: Plan) -> tuple[ServerStep, Any, Any]:
        """The server's step at the close of a window, the next state of its optimiser, and the next `Beside`."""
        held, rule = Accumulator(state.buffer, state.buffer_bits, state.total), self.config.optimizer
        across, gather, f = self.placement.sum, self.placement.gather, self.config.byzantine
        step = self._kernel.close(
            CloseInputs(self.layout, state.params, held, now.weights, now.server_lr, now.keep, f, across, gather)
        )
        params, optimizer = step.params, state.optimizer
        if rule is not None:
            params, optimizer = server_step(rule, state.params, params, step.held, optimizer, now.optimizer_lr)
            params = with_state(params, split_state(step.params)[1])  # statistics are averaged, not stepped
        params = self._memories.as_sent(params, state.params)
        return step._replace(params=params, held=()), optimizer, self._memories.close(state.beside)

    def _fedavg_model(self, params: Any, buffer: Any, weights: jax.Array) -> Any:
        """The paper's second server model: the plain mean of the buffer (`weights` by slot)."""
        return self._memories.as_sent(fedavg(params, buffer, weights, across=self.placement.sum), params)

    def _dispatch(self, state: State, now: Plan) -> State:
        """Algorithm 3 in place: each dispatched client gets W under its own mask."""

        weights, make_masks = self.layout.prunable_leaves(state.params), self._submodels.masks or _masks_by_level

        def send(k: jax.Array, slots: tuple[Any, tuple[jax.Array, ...], Any]) -> tuple[Any, Any, Any]:
            sent, bits, beside = slots
            slot = now.dispatch[k]
            masks = make_masks(state.levels, weights, now.percent[slot])
            whole = self.config.aggregation.restores  # masked where it is read
            sub_model = state.params if whole else apply_masks(self.layout, state.params, masks)
            sent = put_all(sent, slot, sub_model)
            bits = tuple(b.at[slot].set(pack(m.reshape(-1))) for b, m in zip(bits, masks, strict=True))
            if self._memories.beside:
                beside = put_all(beside, slot, state.beside.value)
            return sent, bits, beside

        start = state.sent, state.sent_bits, state.beside_sent
        sent, bits, beside = lax.fori_loop(0, now.dispatch_count.reshape(()), send, start)
        return state._replace(sent=sent, sent_bits=bits, beside_sent=beside)


def _masks_by_level(levels: tuple[jax.Array, ...], weights: Any, percent: jax.Array) -> tuple[jax.Array, ...]:
    """The masks of a client of that density, from levels alone."""
    return level_masks(levels, percent)

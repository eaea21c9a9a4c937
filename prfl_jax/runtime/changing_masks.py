"""Masks that clients and server choose during a run: when clients prune, how the server's mask changes, what it costs.

A client prunes in its first round of each `pruning.interval` windows; in the initial stage, which comes first, in each
round. What it uploads then is known only after it was trained, so such a round is trained before the clock runs its
window (`ChunkRunner.prepare`). After a window in which clients pruned, the server's mask follows from all clients'
last masks.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prfl_jax.clock import Arrival, Costs, in_turn
from prfl_jax.engine.method import ResolvedMethod
from prfl_jax.engine.placement import ALL, OWN, Placement
from prfl_jax.engine.state import State
from prfl_jax.submodel import find_submodel, pruning_settings
from prfl_jax.submodel.saved_masks import packed
from prfl_jax.submodel.server_mask import HELD, NOT_HELD, MaskInputs, held_masks
from prfl_jax.submodel.votes import count_votes
from prfl_jax.system import multi_process
from prfl_jax.transport.mask_costs import HeldWeights, encoded_bytes, mask_costs, value_bytes
from prfl_jax.transport.measured import measured_seconds


@dataclasses.dataclass(frozen=True)
class MaskChanges:
    """What a change of the masks did.

    Attributes:
      initial: whether it belongs to the initial stage.
      retention: share of the model's values, with those that are never pruned, that the server's mask holds.
      clients: `[M]` likewise, of each client's own masks.
      changed: whether the server's mask is another one.
      server_bytes: of the server's model: the values that its mask holds, and the encoded mask.
      initial_over: whether the initial stage has ended.
    """

    initial: bool
    retention: float
    clients: np.ndarray
    changed: bool
    server_bytes: int
    initial_over: bool


class ChangingMasks:
    """The host's part of the masks of a run.

    Args:
      config: validated.
      method: its resolved choices, with `Submodels.server_mask`.
      placement: of the slots.

    Attributes:
      initial: whether the initial stage goes on.
      rounds: of the initial stage so far.
    """

    def __init__(self, config: Any, method: ResolvedMethod, placement: Placement) -> None:
        assert method.submodels.server_mask is not None
        self._config, self._size, self._layout, self._placement = config, method.size, method.layout, placement
        self.settings, self._rule = pruning_settings(config), method.submodels.server_mask
        clients, layers = config.clients.number, np.array(method.size.layers, np.int64)
        most = self.settings.initial_rounds
        self._most = find_submodel(config.submodel).initial_rounds if most is None else most
        self.initial = self._rule.initial is not None and self._most > 0
        self.rounds = 0
        self._begins = 0  # the window after which training begins
        self._periods = np.zeros(clients, np.int64)  # in which each client has pruned last
        self._server, self._held = layers, np.repeat(layers[None], clients, 0)
        # of clients in flight that have pruned: what they hold, and the interval in which they were dispatched
        self._pending: dict[int, tuple[list[int], int]] = {}
        self._owed = np.zeros(clients, bool)  # who has not been sent the server's mask yet
        self._new_since = 0  # the window after which it changed last
        self._change = {
            initial: placement.jit_global(functools.partial(self._changed, initial), ALL) for initial in (False, True)
        }

    # When clients prune.

    def prunes(self, client: int, window: int) -> bool:
        """Whether a client that is dispatched at the start of a window chooses its masks anew."""
        return self.initial or bool(self._periods[client] < self._period(window))

    def due(self, window: int) -> bool:
        """Whether any client would prune in a round of that window."""
        return self.initial or bool((self._periods < self._period(window)).any())

    def _period(self, window: int) -> int:
        return (window - self._begins) // self.settings.interval

    # What rounds cost.

    def costs(self) -> Costs:
        """Costs of the next dispatches."""
        config, sent, new = self._config, self._held.copy(), np.zeros(len(self._held), bool)
        for client, (counts, _) in self._pending.items():
            sent[client], new[client] = counts, True
        held = HeldWeights(self._server, self._held, sent, new, self._owed)
        steps = self.settings.initial_steps if self.initial else config.local.steps
        speeds = in_turn(config.clients.flop_s, config.clients.number)
        made = mask_costs(self._size, held, steps * float(config.local.batch_size), speeds)
        seconds = made.compute_s + measured_seconds(config.clients, self._held, steps)
        return dataclasses.replace(made, compute_s=seconds)

    def trained(self, state: State, window: int, clients: Sequence[int], slots: Sequence[int]) -> None:
        """Notes the masks of clients that a window dispatches, that have pruned and wait for their upload, by slots."""
        places = [self._placement.slot(slot) for slot in slots]
        counts = _held_in([multi_process.fetch(bits)[places] for bits in state.trained.memories.work.bits])
        for client, own in zip(clients, counts.tolist(), strict=True):
            self._pending[client] = own, 0 if self.initial else self._period(window)

    def failed(self, client: int) -> None:
        """Forgets what a client would have uploaded."""
        self._pending.pop(client, None)

    @property
    def owed(self) -> bool:
        """Whether any client has not been sent the server's mask yet, so that its next dispatch costs more."""
        return bool(self._owed.any())

    def received(self, arrivals: Sequence[Arrival]) -> bool:
        """Notes who has the server's mask, by a window's arrivals; returns whether costs have changed by that."""
        have = [one.client for one in arrivals if one.version >= self._new_since and self._owed[one.client]]
        self._owed[have] = False
        return bool(have)

    # How the server's mask changes.

    def after(self, state: State, window: int, pruned: Sequence[int]) -> tuple[State, MaskChanges]:
        """The masks after a window with arrivals of clients that have pruned.

        Args:
          pruned: these clients.
        """
        for client in pruned:
            self._held[client], self._periods[client] = self._pending.pop(client)
        was_initial = self.initial
        bits = tuple(self._placement.to_clients(multi_process.fetch(own)) for own in state.clients.work.bits)
        levels, counts, changed = self._change[was_initial](state.levels, bits, state.params)
        state = state._replace(levels=levels)
        self._server = np.asarray(counts, np.int64)
        if changed:
            self._owed[:], self._new_since = True, window
        if was_initial:
            state = self._everybody_takes(state)
            self._held[:] = self._server
            self.rounds += 1
            if self.retention < self.settings.initial_density or self.rounds >= self._most:
                self.initial, self._begins = False, window
        return state, MaskChanges(
            was_initial, self.retention, self.retentions(), bool(changed), self.server_bytes(), not self.initial
        )

    @property
    def retention(self) -> float:
        """Share of all values that the server's mask holds."""
        return float(self._share(self._server))

    def retentions(self) -> np.ndarray:
        """`[M]` share of all values that each client's own masks hold."""
        return self._share(self._held)

    def server_bytes(self) -> int:
        """Bytes of the server's model: the values that its mask holds, and the encoded mask."""
        return int(value_bytes(self._size, self._server) + encoded_bytes(self._size, self._server))

    def _share(self, held: np.ndarray) -> Any:
        return (held.sum(-1) + self._size.fixed) / self._size.total

    def _changed(self, initial: bool, levels: Any, bits: Any, params: Any) -> Any:
        """(the next levels, weights that each leaf of them holds, whether any mask is another one); traced."""
        layout, masks = self._layout, held_masks(levels)
        inputs = MaskInputs(masks, layout.prunable_leaves(params), count_votes(layout, bits))
        change = self._rule.initial if initial else self._rule.change
        assert change is not None
        after = change(inputs, self.settings)
        counts = jnp.stack([jnp.sum(mask, dtype=jnp.int32) for mask in after])
        changed = jnp.any(jnp.stack([jnp.any(a != b) for a, b in zip(after, masks, strict=True)]))
        return tuple(jnp.where(mask, HELD, NOT_HELD).astype(jnp.int8) for mask in after), counts, changed

    def _everybody_takes(self, state: State) -> State:
        """All clients have the server's mask for their own: each round of the initial stage begins from it."""
        own, place = state.clients.work, self._placement

        def stacked(mask: Any, old: Any) -> Any:
            stack = np.broadcast_to(packed(mask), old.shape)
            return jax.device_put(stack, old.sharding) if place.count == 1 else place.put(stack, OWN)

        masks = held_masks(tuple(map(multi_process.fetch, state.levels)))
        bits = tuple(stacked(mask, old) for mask, old in zip(masks, own.bits, strict=True))
        return state._replace(clients=state.clients._replace(work=own._replace(bits=bits)))

    def to_state(self) -> dict[str, Any]:
        """Everything that changes, as JSON can hold it."""
        return {
            "initial": self.initial,
            "rounds": self.rounds,
            "begins": self._begins,
            "periods": self._periods.tolist(),
            "server": self._server.tolist(),
            "held": self._held.tolist(),
            "owed": self._owed.tolist(),
            "new_since": self._new_since,
            "pending": sorted([client, *own] for client, own in self._pending.items()),
        }

    def from_state(self, state: dict[str, Any]) -> ChangingMasks:
        """Takes over what `to_state` wrote; returns itself."""
        self.initial, self.rounds, self._begins = state["initial"], state["rounds"], state["begins"]
        self._periods = np.array(state["periods"], np.int64)
        self._server, self._held = np.array(state["server"], np.int64), np.array(state["held"], np.int64)
        self._owed, self._new_since = np.array(state["owed"], bool), state["new_since"]
        self._pending = {client: (own, period) for client, own, period in state["pending"]}
        return self


def _held_in(bits: Sequence[np.ndarray]) -> np.ndarray:
    """`[n, L]` weights in packed masks `[n, ceil(size/8)]` a leaf."""
    return np.stack([np.bitwise_count(own).sum(-1, dtype=np.int64) for own in bits], -1)

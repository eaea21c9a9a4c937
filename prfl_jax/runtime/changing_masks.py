"""Masks that clients choose during a run, and the server by their votes: when they change, and what that costs.

A client prunes in its first round of each `pruning.interval` windows; in the initial stage, which comes first, in each
round. What it uploads then is known only after it was trained, so such a round is trained before the clock runs its
window (`ChunkRunner.prepare`). After a window in which clients pruned, the server's mask follows from all clients'
last masks.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from prfl_jax.clock import Costs, Window
from prfl_jax.engine.method import ResolvedMethod
from prfl_jax.engine.placement import ALL, OWN, Placement
from prfl_jax.engine.state import State
from prfl_jax.runtime.run_masks import MaskChanges, RunMasks, changed_levels
from prfl_jax.submodel import find_submodel
from prfl_jax.submodel.saved_masks import packed
from prfl_jax.submodel.server_mask import MaskInputs, held_masks
from prfl_jax.submodel.votes import count_votes
from prfl_jax.system import multi_process
from prfl_jax.transport.mask_costs import HeldWeights, held_seconds, mask_costs


class ChangingMasks(RunMasks):
    """The host's part of the clients' masks of a run, and of the server's.

    Args:
      config: validated.
      method: its resolved choices, with `Submodels.server_mask`.
      placement: of the slots.

    Attributes:
      initial: whether the initial stage goes on.
      rounds: of the initial stage so far.
    """

    def __init__(self, config: Any, method: ResolvedMethod, placement: Placement) -> None:
        super().__init__(config, method, placement)
        clients = config.clients.number
        most = self.settings.initial_rounds
        self._most = find_submodel(config.submodel).initial_rounds if most is None else most
        self.initial = self._rule.initial is not None and self._most > 0
        self._by_density = find_submodel(config.submodel).masks_by_density
        self.rounds = 0
        self._begins = 0  # the window after which training begins
        self._periods = np.zeros(clients, np.int64)  # in which each client has pruned last
        self._held = np.repeat(self._server[None], clients, 0)
        # of clients in flight that have pruned: what they hold, and the interval in which they were dispatched
        self._pending: dict[int, tuple[list[int], int]] = {}
        self._change = {
            initial: placement.jit_global(functools.partial(self._changed, initial), ALL) for initial in (False, True)
        }

    # When clients prune.

    def prunes(self, client: int, window: int) -> bool:
        """Whether a client that is dispatched at the start of a window chooses its masks anew."""
        return self.initial or bool(self._periods[client] < self._period(window))

    def trains_ahead(self, window: int) -> bool:
        """Whether any client would prune in a round of that window."""
        return self.initial or bool((self._periods < self._period(window)).any())

    def _period(self, window: int) -> int:
        return (window - 1 - self._begins) // self.settings.interval

    def decides(self, window: int) -> bool:
        """Whether a density that is decided after a window would be in any client's next masks."""
        return not self._by_density or self.trains_ahead(window + 1)

    # What rounds cost.

    def costs(self) -> Costs:
        """Costs of the next dispatches."""
        sent, new = self._held.copy(), np.zeros(len(self._held), bool)
        for client, (counts, _) in self._pending.items():
            sent[client], new[client] = counts, True
        held = HeldWeights(self._server, self._held, sent, new, self._owed)
        steps = self.settings.initial_steps if self.initial else None
        return mask_costs(self._size, held, held_seconds(self._config, self._size, self._held, steps))

    def trained(self, state: State, window: int, clients: Sequence[int], slots: Sequence[int]) -> None:
        """Notes the masks of clients that a window dispatches, that have pruned and wait for their upload, by slots."""
        places = [self._placement.slot(slot) for slot in slots]
        counts = _held_in([multi_process.fetch(bits)[places] for bits in state.trained.memories.work.bits])
        for client, own in zip(clients, counts.tolist(), strict=True):
            self._pending[client] = own, 0 if self.initial else self._period(window)

    def failed(self, client: int) -> None:
        """Forgets what a client would have uploaded."""
        self._pending.pop(client, None)

    def ends_chunk(self, window: int, pruned: Sequence[int]) -> bool:
        """Whether the server's mask may change after a window, or costs, or the next one is trained ahead."""
        return bool(pruned) or self.trains_ahead(window + 1) or bool(self._owed.any())

    def closed(self, window: Window, pruned: Sequence[int]) -> bool:
        """Notes who has pruned in it; returns whether anybody has."""
        for client in pruned:
            self._periods[client] = self._pending[client][1]
        return bool(pruned)

    # How the server's mask changes.

    def after(self, state: State, window: int, pruned: Sequence[int]) -> tuple[State, MaskChanges]:
        """The masks after a window with arrivals of clients that have pruned.

        Args:
          pruned: these clients.
        """
        for client in pruned:
            self._held[client] = self._pending.pop(client)[0]
        was_initial = self.initial
        bits = tuple(self._placement.to_clients(multi_process.fetch(own)) for own in state.clients.work.bits)
        state, changed = self._replaced(state, window, self._change[was_initial](state.levels, bits, state.params))
        if was_initial:
            state = self._everybody_takes(state)
            self._held[:] = self._server
            self.rounds += 1
            if self.retention < self.settings.initial_density or self.rounds >= self._most:
                self.initial, self._begins = False, window
        return state, MaskChanges(
            was_initial, self.retention, self.retentions(), changed, self.server_bytes(), not self.initial
        )

    def retentions(self) -> np.ndarray:
        """`[M]` share of all values that each client's own masks hold."""
        return self._share(self._held)

    def _changed(self, initial: bool, levels: Any, bits: Any, params: Any) -> Any:
        """(the next levels, weights that each leaf of them holds, whether any mask is another one); traced."""
        layout, masks = self._layout, held_masks(levels)
        inputs = MaskInputs(masks, layout.prunable_leaves(params), count_votes(layout, bits))
        change = self._rule.initial if initial else self._rule.change
        assert change is not None
        return changed_levels(levels, change(inputs, self.settings))

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
        return super().to_state() | {
            "initial": self.initial,
            "rounds": self.rounds,
            "begins": self._begins,
            "periods": self._periods.tolist(),
            "held": self._held.tolist(),
            "pending": sorted([client, *own] for client, own in self._pending.items()),
        }

    def from_state(self, state: dict[str, Any]) -> ChangingMasks:
        """Takes over what `to_state` wrote; returns itself."""
        self.initial, self.rounds, self._begins = state["initial"], state["rounds"], state["begins"]
        self._periods = np.array(state["periods"], np.int64)
        self._held = np.array(state["held"], np.int64)
        self._pending = {client: (own, period) for client, own, period in state["pending"]}
        return super().from_state(state)


def _held_in(bits: Sequence[np.ndarray]) -> np.ndarray:
    """`[n, L]` weights in packed masks `[n, ceil(size/8)]` a leaf."""
    return np.stack([np.bitwise_count(own).sum(-1, dtype=np.int64) for own in bits], -1)

"""One mask that the server keeps for all clients and changes after some windows: SNIP, iterative pruning, PruneFL.

Clients train under it and have no masks of their own. Windows wait for all that they dispatched, so no update under an
earlier mask is on its way when it changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from prfl_jax.clock import Costs, Window, faults_on, find_close_rule
from prfl_jax.engine.method import ResolvedMethod
from prfl_jax.engine.placement import ALL, Placement
from prfl_jax.engine.state import State
from prfl_jax.runtime.run_masks import MaskChanges, RunMasks, changed_levels
from prfl_jax.submodel import find_submodel
from prfl_jax.submodel.server_mask import Arrays, MaskInputs, held_masks
from prfl_jax.system.host_offload import fetch
from prfl_jax.transport.mask_costs import HeldWeights, gradient_bytes, held_seconds, mask_costs
from prfl_jax.transport.round_time import round_time


class SharedMask(RunMasks):
    """The host's part of the server's mask, with `ServerMask.due`; args as for `RunMasks`."""

    def __init__(self, config: Any, method: ResolvedMethod, placement: Placement) -> None:
        super().__init__(config, method, placement)
        self._postponed = False  # a change was due after a window in which nobody arrived
        self._slot = 0  # one that the last window of a chunk has dispatched
        rule = find_submodel(config.submodel)
        self.first_rounds = rule.first_rounds(self.settings)
        self._gathers = rule.evidence is not None
        window = config.window
        self._partial = bool(window.cohort) or find_close_rule(window.close).cuts_off or faults_on(config)
        self._uploads = False  # whether clients send what is gathered of their gradients
        self._time = round_time(config, method.size)
        self._change = placement.jit_global(self._changed, ALL)
        self._zeros = placement.jit_global(lambda tree: jax.tree.map(jnp.zeros_like, tree), ALL)

    def costs(self) -> Costs:
        """Costs of the next dispatches."""
        clients, size = len(self._owed), self._size
        held = np.broadcast_to(self._server, (clients, len(self._server)))
        weights = HeldWeights(self._server, held, held, np.zeros(clients, bool), self._owed)
        made = mask_costs(size, weights, held_seconds(self._config, size, held))
        return dataclasses.replace(made, up_bytes=made.up_bytes + gradient_bytes(size)) if self._uploads else made

    def prepare(self, state: State, window: int) -> tuple[State, bool]:
        """Before a window after which the mask changes by gradients: these are uploaded in it.

        Where not all clients may arrive in it only that window's count, since no others are uploaded.
        """
        if not self._gathers or self._uploads or not self._due(window):
            return state, False
        self._uploads = True
        return (self._forgotten(state) if self._partial else state), True

    def ends_chunk(self, window: int, pruned: Sequence[int]) -> bool:
        """Whether the mask or costs may change after a window."""
        changes = self._due(window) or (self._gathers and self._due(window + 1))
        return changes or bool(self._owed.any())

    def closed(self, window: Window, pruned: Sequence[int]) -> bool:
        """Whether the mask changes after it; where nobody arrived that waits for the next window."""
        if not window.arrivals:
            self._postponed = self._due(window.index)
            return False
        due, self._postponed = self._due(window.index), False
        # in a cohort slots are given out anew, the lowest first
        self._slot = 0 if self._config.window.cohort else window.arrivals[0].client
        return due

    def _forgotten(self, state: State) -> State:
        """A state that has gathered nothing yet."""
        return state._replace(importance=self._zeros(state.importance))

    def _due(self, window: int) -> bool:
        assert self._rule.due is not None
        return self._postponed or self._rule.due(window, self.settings)

    def after(self, state: State, window: int, pruned: Sequence[int]) -> tuple[State, MaskChanges]:
        """The next mask."""
        sent = self._layout.prunable_leaves(state.sent) if self._rule.reads_before else ()
        place = np.int32(self._placement.slot(self._slot))
        squares = state.importance.total if self._gathers else ()
        found = self._change(state.levels, state.params, (sent, place), squares, np.int32(window))
        state, changed = self._replaced(state, window, found)
        if self._gathers:
            state, self._uploads = self._forgotten(state), False
        return state, self.changes(changed)

    def changes(self, changed: bool, rounds: int | None = None) -> MaskChanges:
        """The change to the present mask; `rounds`: of the stage before window 1, if it was made there."""
        return MaskChanges(
            rounds is not None, self.retention, self.retentions(), changed, self.server_bytes(), True, rounds
        )

    def first_step(self, state: State, squares: Arrays) -> tuple[State, bool]:
        """The next mask in the stage before window 1, and whether it is another one.

        Args:
          squares: gathered as `GRADIENT_SUMS` says.
        """
        return self._replaced(
            state, 0, self._change(state.levels, state.params, ((), np.int32(0)), squares, np.int32(0))
        )

    @property
    def held(self) -> np.ndarray:
        """`[L]` weights of each prunable leaf that the mask holds."""
        return self._server

    def retentions(self) -> np.ndarray:
        """`[M]` share of all values that clients hold: the server's."""
        return np.full(len(self._owed), self.retention)

    def _changed(self, levels: Any, params: Any, sent: Any, squares: Any, window: Any) -> Any:
        """As `changed_levels`, by the rule; traced."""
        stacks, place = sent
        inputs = MaskInputs(
            held_masks(levels),
            self._layout.prunable_leaves(params),
            before=tuple(fetch(stack, place).astype(jnp.float32) for stack in stacks),
            squares=squares[:-1],
            fixed_squares=squares[-1] if squares else 0.0,
            window=window,
            layer_s=self._time.layer_s.astype(np.float32),
            constant_s=self._time.constant_s,
        )
        return changed_levels(levels, self._rule.change(inputs, self.settings))

    def to_state(self) -> dict[str, Any]:
        """Everything that changes, as JSON can hold it."""
        return super().to_state() | {
            "postponed": self._postponed,
            "slot": self._slot,
            "uploads": self._uploads,
            "first_rounds": self.first_rounds,
        }

    def from_state(self, state: dict[str, Any]) -> Self:
        """Takes over what `to_state` wrote; returns itself."""
        self._postponed, self._slot, self._uploads = state["postponed"], state["slot"], state["uploads"]
        self.first_rounds = state["first_rounds"]
        return super().from_state(state)

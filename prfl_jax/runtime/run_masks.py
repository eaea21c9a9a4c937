"""`RunMasks`: the host's part of masks that the server or its clients choose during a run, as the run's loop sees it.

`changing_masks.py` has the masks of clients, `shared_mask.py` the one that the server keeps for all clients.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import jax.numpy as jnp
import numpy as np

from prfl_jax.clock import Arrival, Costs, Window
from prfl_jax.engine.method import ResolvedMethod
from prfl_jax.engine.placement import Placement
from prfl_jax.engine.state import State
from prfl_jax.submodel import pruning_settings
from prfl_jax.submodel.server_mask import HELD, NOT_HELD, Arrays, held_masks
from prfl_jax.transport.mask_costs import encoded_bytes, value_bytes


@dataclasses.dataclass(frozen=True)
class MaskChanges:
    """What a change of the masks did.

    Attributes:
      initial: whether it belongs to the initial stage.
      retention: share of the model's values, with those that are never pruned, that the server's mask holds.
      clients: `[M]` likewise, of each client's own masks; the server's where they have none.
      changed: whether the server's mask is another one.
      server_bytes: of the server's model: the values that its mask holds, and the encoded mask.
      initial_over: whether the initial stage has ended.
      rounds: of the initial stage, where it is over at once, before window 1; else None.
    """

    initial: bool
    retention: float
    clients: np.ndarray
    changed: bool
    server_bytes: int
    initial_over: bool
    rounds: int | None = None


class RunMasks(abc.ABC):
    """Masks of a run; those of a subclass say when they change, and what rounds cost.

    Args:
      config: validated.
      method: its resolved choices, with `Submodels.server_mask`.
      placement: of the slots.

    Attributes:
      initial: whether the initial stage goes on, whose rounds are windows of `pruning.initial_steps` steps.
      first_rounds: rounds at most of a stage on one client's samples, which comes before window 1; 0: none, or it is
        over.
    """

    initial = False
    first_rounds = 0

    def __init__(self, config: Any, method: ResolvedMethod, placement: Placement) -> None:
        assert method.submodels.server_mask is not None
        self._config, self._size, self._layout, self._placement = config, method.size, method.layout, placement
        self.settings, self._rule = pruning_settings(config), method.submodels.server_mask
        self._server = np.array(method.size.layers, np.int64)  # weights of each layer that the server's mask holds
        self._owed = np.zeros(config.clients.number, bool)  # who has not been sent the server's mask yet
        self._new_since = 0  # the window after which it changed last

    # Where clients choose masks: which rounds have to be trained before the clock runs their window.

    def trains_ahead(self, window: int) -> bool:
        """Whether rounds of that window have to be, since any client would prune in one."""
        return False

    def prunes(self, client: int, window: int) -> bool:
        """Whether a client that is dispatched at the start of a window chooses its masks anew."""
        return False

    def trained(self, state: State, window: int, clients: Sequence[int], slots: Sequence[int]) -> None:
        """Notes the masks of clients that a window dispatches, that have pruned and wait for their upload, by slots."""
        return  # no round is trained ahead

    def failed(self, client: int) -> None:
        """Forgets what a client would have uploaded."""
        return  # nothing is known of it

    def decides(self, window: int) -> bool:
        """Whether the density policy may decide after a window."""
        return True

    # Windows.

    def prepare(self, state: State, window: int) -> tuple[State, bool]:
        """Before a window of which nothing is planned yet: the state, and whether costs have changed."""
        return state, False

    @abc.abstractmethod
    def costs(self) -> Costs:
        """Costs of the next dispatches."""

    @abc.abstractmethod
    def ends_chunk(self, window: int, pruned: Sequence[int]) -> bool:
        """Whether nothing can be planned beyond a window.

        Args:
          pruned: clients whose arrivals in it have masks that they chose anew.
        """

    @abc.abstractmethod
    def closed(self, window: Window, pruned: Sequence[int]) -> bool:
        """Notes the last window of a chunk; returns whether the server's mask may change after it."""

    def received(self, arrivals: Sequence[Arrival]) -> bool:
        """Notes who has the server's mask, by a window's arrivals; returns whether costs have changed by that."""
        have = [one.client for one in arrivals if one.version >= self._new_since and self._owed[one.client]]
        self._owed[have] = False
        return bool(have)

    @abc.abstractmethod
    def after(self, state: State, window: int, pruned: Sequence[int]) -> tuple[State, MaskChanges]:
        """The masks after a window for which `closed` said so, and the change."""

    # Sizes.

    @property
    def retention(self) -> float:
        """Share of all values that the server's mask holds."""
        return float(self._share(self._server))

    @abc.abstractmethod
    def retentions(self) -> np.ndarray:
        """`[M]` share of all values that each client's masks hold."""

    def server_bytes(self) -> int:
        """Bytes of the server's model: the values that its mask holds, and the encoded mask."""
        return int(value_bytes(self._size, self._server) + encoded_bytes(self._size, self._server))

    def _share(self, held: np.ndarray) -> Any:
        return (held.sum(-1) + self._size.fixed) / self._size.total

    def _replaced(self, state: State, window: int, found: Any) -> tuple[State, bool]:
        """The state with other levels, and whether any mask is another one, of what `changed_levels` found."""
        levels, counts, changed = found
        self._server = np.asarray(counts, np.int64)
        if changed:
            self._owed[:], self._new_since = True, window
        return state._replace(levels=levels), bool(changed)

    def to_state(self) -> dict[str, Any]:
        """Everything that changes, as JSON can hold it."""
        return {"server": self._server.tolist(), "owed": self._owed.tolist(), "new_since": self._new_since}

    def from_state(self, state: dict[str, Any]) -> Self:
        """Takes over what `to_state` wrote; returns itself."""
        self._server = np.array(state["server"], np.int64)
        self._owed, self._new_since = np.array(state["owed"], bool), state["new_since"]
        return self


def changed_levels(levels: Arrays, after: Arrays) -> Any:
    """(the levels of the masks `after`, weights that each leaf of them holds, whether any mask is another one); traced.

    Args:
      levels: of the masks before.
    """
    counts = jnp.stack([jnp.sum(mask, dtype=jnp.int32) for mask in after])
    changed = jnp.any(jnp.stack([jnp.any(a != b) for a, b in zip(after, held_masks(levels), strict=True)]))
    return tuple(jnp.where(mask, HELD, NOT_HELD).astype(jnp.int8) for mask in after), counts, changed

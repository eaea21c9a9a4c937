"""What clients keep between their rounds: the state of their local work, and layers that stay with them.

It is kept for all N clients: read for a client's round, and written once, when the update of that round arrives. A
client has one round in flight at most, so what it reads is what it had at its dispatch, whenever it is trained.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prfl_jax.local import ClientState, LocalTask
from prfl_jax.transport import WHOLE, Upload


class ClientMemory(NamedTuple):
    """What one client keeps, or all of them `[N, ...]`.

    Attributes:
      work: of its local work (`LocalInput.kept`); () for nothing.
      layers: {path: leaf} of its own layers, such as batch norm's with its statistics; {} where it has none.
      unsent: what it has not sent yet of its updates (`Upload.init`); () where updates are sent whole.
    """

    work: Any = ()
    layers: Any = ()
    unsent: Any = ()


class Beside(NamedTuple):
    """What the server keeps beside the model (`ClientState.server`).

    Attributes:
      value: it, a pytree.
      total: the sum of the changes of the arrivals since the last close.
    """

    value: Any
    total: Any


@dataclasses.dataclass(frozen=True)
class Memories:
    """What is kept of clients in one run.

    Attributes:
      task: what is the same for every client and round.
      state: of the local work; None: nothing.
      stays: paths of leaves that no client sends: the server's stay as they were drawn.
      personal: whether each client keeps its own values of those leaves.
      clients: N, all clients of the run.
      by_client: whether a client's place in `State.clients` is its number, as in cohorts; else it is its slot.
      upload: which part of their updates clients send.
    """

    task: LocalTask
    state: ClientState | None
    stays: frozenset[str]
    personal: bool
    clients: int
    by_client: bool = False
    upload: Upload = WHOLE

    @property
    def any(self) -> bool:
        """Whether clients keep anything."""
        return self.state is not None or self.personal or self.upload.compresses

    @property
    def beside(self) -> bool:
        """Whether the server sends something beside the model."""
        return self.state is not None and self.state.server is not None

    def init(self, params: Any) -> ClientMemory:
        """What one client has before its first round."""
        work = () if self.state is None else self.state.init(self.task, params)
        return ClientMemory(work, self.own_layers(params), () if self.upload.init is None else self.upload.init(params))

    def init_all(self, params: Any, slots: int) -> Any:
        """The same for all clients, stacked, where the devices have so many slots; () where clients keep nothing."""
        number = self.clients if self.by_client else slots
        return stacked(self.init(params), number) if self.any else ()

    def init_beside(self, params: Any) -> Any:
        """`Beside` before the first window; () without."""
        if not self.beside:
            return ()
        assert self.state is not None and self.state.server is not None
        value = self.state.server(params)
        return Beside(value, jax.tree.map(jnp.zeros_like, value))

    def own_layers(self, params: Any) -> Any:
        """{path: leaf} of the layers that stay with a client; {} where it has none."""
        return self.task.layout.leaves_at(params, self.stays) if self.personal else {}

    def with_layers(self, params: Any, memory: ClientMemory) -> Any:
        """A model as the client has it: with its own layers."""
        return self.task.layout.with_leaves(params, memory.layers) if self.personal else params

    def as_sent(self, params: Any, before: Any) -> Any:
        """A model as it leaves a client or the server: leaves that are not sent are those of `before`."""
        layout = self.task.layout
        return layout.with_leaves(params, layout.leaves_at(before, self.stays)) if self.stays else params

    def uploaded(
        self, sent: Any, params: Any, masks: tuple[jax.Array, ...], memory: ClientMemory, values: jax.Array
    ) -> tuple[Any, Any]:
        """(a client's model as it arrives, what stays unsent of it), of a round that was sent the model `sent`."""
        if self.upload.encode is None:
            return params, ()
        return self.upload.encode(self.task.layout, sent, params, masks, memory.unsent, values)

    def change(self, before: Any, after: Any) -> Any:
        """What one arrival adds to `Beside.total`."""
        assert self.state is not None and self.state.change is not None
        return self.state.change(before.work, after.work)

    def close(self, beside: Any) -> Any:
        """`Beside` after a window: its value has moved by the sum of the changes over N."""
        if not self.beside:
            return beside
        value = jax.tree.map(lambda value, total: value + total / self.clients, beside.value, beside.total)
        return Beside(value, jax.tree.map(jnp.zeros_like, beside.total))


def stacked(tree: Any, number: int) -> Any:
    """A pytree as often as `number` says, `[number, ...]`."""
    return jax.tree.map(lambda leaf: jnp.repeat(jnp.asarray(leaf)[None], number, axis=0), tree)

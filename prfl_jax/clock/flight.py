"""One dispatch on its way: mask, shared bytes, computing, upload."""

from __future__ import annotations

import dataclasses
from typing import Any

from prfl_jax.clock.stream import Receiver, Stream


@dataclasses.dataclass(slots=True)
class Flight:
    """A client that holds a dispatch which has not arrived yet. Times in s, bytes whole.

    `mask` is None where no mask is sent; `stream` and `mask_stream` are kept until this client's bytes
    are sent; `counted` are the received bytes already reported; `landed_s` is when its upload had ended, where its
    turn among those that ended at the same moment has not come.
    """

    client: int
    index: int
    version: int
    dispatched_s: float
    compute_s: float
    up_bytes: int
    values: Receiver
    mask: Receiver | None = None
    stream: Stream | None = None
    mask_stream: Stream | None = None
    counted: int = 0
    computed_s: float | None = None
    uploading: bool = False
    landed_s: float | None = None
    stamp: int = 0  # outdates events in the queue, where the round was cut short

    @property
    def down_bytes(self) -> int:
        """All it is to receive: mask and values."""
        return self.values.prefix + (0 if self.mask is None else self.mask.prefix)

    def received(self, now_s: float) -> int:
        """Whole bytes of mask and values the client holds by now."""
        got = self.values.taken_at(now_s, self.stream)
        if self.mask is not None:
            got += self.mask.taken_at(now_s, self.mask_stream)
        return got

    def to_state(self) -> dict[str, Any]:
        state = {name: getattr(self, name) for name in (*_PLAIN, "landed_s")}
        state["values"] = self.values.to_state()
        state["mask"] = None if self.mask is None else self.mask.to_state()
        return state

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Flight:
        """Inverse of `to_state`, without the streams."""
        mask = None if state["mask"] is None else Receiver.from_state(state["mask"])
        plain = {name: state[name] for name in _PLAIN}
        # a checkpoint may hold flights without it
        return cls(values=Receiver.from_state(state["values"]), mask=mask, landed_s=state.get("landed_s"), **plain)


_PLAIN = ("client", "index", "version", "dispatched_s", "compute_s", "up_bytes", "counted", "computed_s", "uploading")

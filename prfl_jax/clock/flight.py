"""One dispatch in flight: a client's download of mask and values, its local training, its upload."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from prfl_jax.clock.stream import Receiver, Stream
from prfl_jax.clock.types import Arrival, Dispatch

MASK, VALUES = 0, 1  # what a download stream carries; the second part of its key


@dataclasses.dataclass(slots=True)
class Flight:
    """A client with a dispatch that has not arrived yet. Times in s, bytes whole.

    `mask` is None where no mask is sent; `stream` and `mask_stream` are kept until this client's bytes
    are sent; `counted` are the received bytes already reported; `landed_s` is when its upload ended, where other
    arrivals of the same moment come before it.
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
    stamp: int = 0  # an event in the queue with another stamp is outdated: the round was cut short

    @classmethod
    def begin(cls, dispatch: Dispatch, mask_bytes: int, compute_s: float, up_bytes: int) -> Flight:
        """The flight of a dispatch that is made now; its own rate is not known yet."""
        client, index, version, now_s, _, down_bytes = dispatch
        if mask_bytes:
            values = Receiver(client, down_bytes - mask_bytes, 0.0, None)
            mask = Receiver(client, mask_bytes, 0.0, now_s)
            return cls(client, index, version, now_s, compute_s, up_bytes, values, mask)
        return cls(client, index, version, now_s, compute_s, up_bytes, Receiver(client, down_bytes, 0.0, now_s))

    def arrival(self) -> Arrival:
        """Its arrival, once it has landed; what ties with the arrival is not later than it."""
        down_s, computed_s, arrived_s = self.values.end_s, self.computed_s, self.landed_s
        assert down_s is not None and computed_s is not None and arrived_s is not None
        return Arrival(
            self.client,
            self.index,
            self.version,
            self.dispatched_s,
            down_s if down_s < arrived_s else arrived_s,
            computed_s if computed_s < arrived_s else arrived_s,
            arrived_s,
            self.up_bytes,
        )

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


def downloads_from(states: Sequence[dict[str, Any]], flights: Mapping[int, Flight]) -> list[Stream]:
    """The streams to clients that `Stream.to_state` wrote; their flights (by client) get them."""
    values = {client: flight.values for client, flight in flights.items()}
    masks = {client: flight.mask for client, flight in flights.items() if flight.mask is not None}
    streams = []
    for state in states:
        mask = state["key"][1] == MASK
        stream = Stream.from_state(state, masks if mask else values)
        streams.append(stream)
        for group in stream.groups:
            for receiver in group.receivers:
                setattr(flights[receiver.client], "mask_stream" if mask else "stream", stream)
    return streams


def upload_state(stream: Stream) -> dict[str, Any]:
    """An upload, as JSON can hold it."""
    return {**stream.to_state(), "taker": stream.groups[0].receivers[0].to_state()}


def uploads_from(states: Sequence[dict[str, Any]]) -> list[Stream]:
    """The uploads that `upload_state` wrote."""
    streams = []
    for state in states:
        receiver = Receiver.from_state(state["taker"])
        streams.append(Stream.from_state(state, {receiver.client: receiver}))
    return streams

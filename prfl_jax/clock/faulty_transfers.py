"""Transfers with faults: rounds that end early, updates that are sent twice, clients that come and leave.

A round that ends early gives up what is under way for it: its client is taken out of the stream it downloads, which
continues with what others need, and its upload stops. What was sent by then stays counted.

The second copy of a repeated upload is a stream of its own, which begins when the first ends and whose update does not
count. It occupies the client's link: the next upload waits for the copy's end.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from prfl_jax.clock.faults import CRASH, DROPOUT, LEFT, LOST_UPLOAD, REPEATED_UPLOAD, FaultDraws, Faults
from prfl_jax.clock.flight import Flight
from prfl_jax.clock.stream import Stream
from prfl_jax.clock.ties import after, until
from prfl_jax.clock.transfers import RECEIVED, Transfers
from prfl_jax.clock.transports import Transport
from prfl_jax.clock.types import Failure, Network, Repeat

_CHANGE = 4  # kind of event: a client comes or leaves

Ended = TypeVar("Ended", Failure, Repeat)


class _Change:
    """The subject of the event that a client comes or leaves; never outdated."""

    __slots__ = ("client", "stamp")

    def __init__(self, client: int) -> None:
        self.client, self.stamp = client, 0


class Endings(NamedTuple):
    """What happened besides arrivals, in order of time, ties by client id.

    `unmasked` are clients whose round failed before they had their mask, `back` those that have come.
    """

    failures: list[Failure]
    repeats: list[Repeat]
    unmasked: list[int]
    back: list[int]


class FaultyTransfers(Transfers):
    """As `Transfers`, with faults.

    Args:
      faults: what can go wrong.
    """

    def __init__(self, network: Network, transport: Transport, seed: int, faults: Faults) -> None:
        super().__init__(network, transport, seed)
        self._faults, self._draws = faults, FaultDraws(seed, faults)
        self._fault_of: dict[int, str | None] = {}  # by client in flight
        self._uploads: dict[int, Stream] = {}  # by client, of its flight
        self._copies: dict[int, tuple[int, Stream]] = {}  # by client: dispatch, and the copy under way
        self._leaving: list[int] = []
        self._endings = Endings([], [], [], [])

    def plan_changes(self, now_s: float) -> None:
        """Plans every client's next coming or leaving after now; once, on a new or restored object."""
        if self._faults.presence is not None:
            for client in range(len(self._up_speed)):
                self._plan_change(client, until(now_s))

    def _plan_change(self, client: int, now_s: float) -> None:
        assert self._faults.presence is not None
        when = self._faults.presence.next_change(client, now_s)
        if when < math.inf:
            heapq.heappush(self._queue, (when, next(self._numbers), _CHANGE, _Change(client), 0))

    def dispatch(self, flights: Iterable[Flight], streams: list[int], now_s: float) -> int:
        flights = list(flights)
        for flight in flights:
            self._fault_of[flight.client], share = self._draws.of(flight.client, flight.index)
            flight.compute_s *= share
        return super().dispatch(flights, streams, now_s)

    def _process(self, now_s: float) -> None:
        """As `Transfers._process`; whoever leaves at this instant leaves after all that ends at it."""
        super()._process(now_s)
        while self._leaving:
            leaving, self._leaving = sorted(self._leaving), []
            for client in leaving:
                self._leave(client, now_s)
            super()._process(now_s)

    def cut(self, clients: Iterable[int], kind: str, now_s: float) -> None:
        """Ends rounds that are in flight."""
        for client in clients:
            self._fail(self.flights[client], kind, now_s)
        self._process(now_s)

    def take(self) -> Endings:
        """What happened since the last call."""
        taken, self._endings = self._endings, Endings([], [], [], [])
        failures, repeats, unmasked, back = taken
        return Endings(_in_order(failures), _in_order(repeats), unmasked, sorted(back))

    def _down_rate(self, flight: Flight, now_s: float) -> float:
        trace = self._faults.down.get(flight.client)
        if trace is None:
            return super()._down_rate(flight, now_s)
        factor = self._down.factor(flight.client, flight.index)
        return factor * trace.rate(now_s, flight.down_bytes / factor)

    def _up_rate(self, client: int, index: int, size: int, now_s: float) -> float:
        trace = self._faults.up.get(client)
        if trace is None:
            return super()._up_rate(client, index, size, now_s)
        factor = self._up.factor(client, index)
        return factor * trace.rate(now_s, size / factor)

    def _handle(self, event: tuple) -> None:
        time_s, _, kind, subject, stamp = event
        if kind == _CHANGE:
            self.events += 1
            there = self._faults.there(subject.client, time_s)
            (self._endings.back if there else self._leaving).append(subject.client)
            self._plan_change(subject.client, time_s)
        elif kind == RECEIVED and stamp == subject.stamp and self._is_copy(subject):
            self.events += 1
            self._receiving.reach(subject, time_s)
            self._end_copy(subject.key[1], time_s)
        else:
            super()._handle(event)

    def _is_copy(self, stream: Stream) -> bool:
        copy = self._copies.get(stream.key[1])
        return copy is not None and copy[1] is stream

    def _begin_upload(self, flight: Flight, now_s: float) -> None:
        fault = self._fault_of[flight.client]
        if fault in (DROPOUT, CRASH):
            self._fail(flight, fault, now_s)
        elif flight.client in self._copies:
            flight.uploading = True  # as soon as the copy has ended
        else:
            super()._begin_upload(flight, now_s)

    def _send_up(self, client: int, index: int, size: int, now_s: float) -> Stream:
        stream = self._uploads[client] = super()._send_up(client, index, size, now_s)
        return stream

    def _land(self, flight: Flight, now_s: float) -> None:
        client, fault = flight.client, self._fault_of[flight.client]
        if fault == LOST_UPLOAD:
            self._fail(flight, fault, now_s)
            return
        del self._fault_of[client]
        self._uploads.pop(client, None)
        super()._land(flight, now_s)
        if fault == REPEATED_UPLOAD and flight.up_bytes:
            self._copies[client] = flight.index, super()._send_up(client, flight.index, flight.up_bytes, now_s)

    def _end_copy(self, client: int, now_s: float) -> None:
        index, stream = self._copies.pop(client)
        self._endings.repeats.append(Repeat(client, index, now_s, int(stream.sent)))
        flight = self.flights.get(client)
        if flight is not None and flight.uploading and flight.landed_s is None:
            self._begin_upload(flight, now_s)

    def _leave(self, client: int, now_s: float) -> None:
        if client in self.flights and self.flights[client].landed_s is None:
            self._fail(self.flights[client], LEFT, now_s)
        if client in self._copies:
            stream = self._copies[client][1]
            self._receiving.leave(stream, stream.groups[0].receivers[0], now_s)
            self._end_copy(client, now_s)

    def _fail(self, flight: Flight, kind: str, now_s: float) -> None:
        """Ends a round without an update."""
        client, mask = flight.client, flight.mask
        got = max(flight.counted, flight.received(now_s))
        if self._downloading.pop(client, None) is not None:
            self._received += got - flight.counted
        if mask is not None:
            if mask.end_s is None or mask.end_s > now_s:
                self._endings.unmasked.append(client)
            if mask.sent_s is None and flight.mask_stream is not None:
                self._sending.leave(flight.mask_stream, mask, now_s)
        if flight.stream is not None:
            self._sending.leave(flight.stream, flight.values, now_s)
        upload, sent = self._uploads.pop(client, None), 0
        if upload is not None:
            if upload.groups:
                self._receiving.leave(upload, upload.groups[0].receivers[0], now_s)
            sent = int(upload.sent)
        flight.stamp += 1
        del self.flights[client], self._fault_of[client]
        missed = flight.down_bytes - got
        failure = Failure(client, flight.index, kind, flight.dispatched_s, now_s, sent, got, missed)
        self._endings.failures.append(failure)

    def to_state(self) -> dict[str, Any]:
        copies = [[client, index] for client, (index, _) in sorted(self._copies.items())]
        return {**super().to_state(), "copies": copies}

    def load_state(self, state: dict[str, Any]) -> None:
        """As `Transfers.load_state`; call `plan_changes` afterwards."""
        self._queue.clear()
        super().load_state(state)
        flights = [flight for flight in self.flights.values() if flight.landed_s is None]
        self._fault_of = {flight.client: self._draws.of(flight.client, flight.index)[0] for flight in flights}
        copies = dict(state["copies"])
        for stream in self._receiving.active:
            client = stream.key[1]
            if client in copies:
                self._copies[client] = copies[client], stream
            else:
                self._uploads[client] = stream


def _in_order(ended: Sequence[Ended]) -> list[Ended]:
    """By time, ties by client id; all that tie have one time."""
    out: list[Ended] = []
    for one in sorted(ended, key=_when):
        tied = out and not after(one.ended_s, out[-1].ended_s)
        out.append(one._replace(ended_s=out[-1].ended_s) if tied else one)
    return sorted(out, key=_when)


def _when(one: Failure | Repeat) -> tuple[float, int]:
    return one.ended_s, one.client

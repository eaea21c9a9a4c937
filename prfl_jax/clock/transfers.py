"""The fluid network: the downloads and uploads between the server and its clients, event by event.

A *stream* is a sequence of bytes that the server sends (to clients) or receives (from one client). The
streams of a direction have a begin order. At each instant the server's rate in that direction
(its MB/s times one log-normal factor per window) goes to the earliest-begun stream with bytes
left, up to that stream's own rate, the rest to the next: strict priority, nothing left idle.
Without contention every stream gets min(own rate, server's rate). Moments that differ by rounding
alone (`ties.py`) are one instant; what happens in it keeps its own time.

Upload: one stream per client; its own rate is the client's upload speed times the factor of this
transfer. It begins when the client has computed; ties by client id.

Download: a stream has takers (client, prefix). Its own rate is the highest download rate (speed
times factor) among the takers whose prefix is not yet sent. What is sent lies in a network
buffer, and a taker takes it at its own rate as it becomes available. With A(t) the bytes sent
by t, a taker ready at b with rate d and prefix S ends at

    max(b, max over s with A(s) <= S of s - A(s)/d) + S/d,   not before S is sent,

so a fresh prefix without competition takes S / min(own download, server upload).

Which streams a batch of dispatches makes is the transport (`transports.py`).

A client that is dispatched later from the same version joins the stream that is there: what has
been sent lies in the buffer, and only what it needs beyond is sent. A mask is a stream of its
own for one client, which takes its mask first; the masks of a batch of dispatches come before
its values in the begin order, by client id.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable
from typing import Any

from prfl_jax.clock.draws import CLIENT_DOWN, CLIENT_UP, LogNormals
from prfl_jax.clock.flight import MASK, VALUES, Flight, downloads_from, upload_state, uploads_from
from prfl_jax.clock.link import Link
from prfl_jax.clock.stream import Receiver, Stream
from prfl_jax.clock.ties import after, until
from prfl_jax.clock.transports import Transport
from prfl_jax.clock.types import Arrival, Network

_MB = 1e6
_SENT, RECEIVED, _MASKED, _COMPUTED = range(4)


class Transfers:
    """All dispatches in flight, as events.

    Args:
      network: speeds, MB/s.
      transport: which streams a batch of dispatches makes.
      seed: root seed of the factors.
    """

    def __init__(self, network: Network, transport: Transport, seed: int) -> None:
        self.flights: dict[int, Flight] = {}  # by client
        self.events = 0  # handled so far, by this object
        self._transport, self.batch = transport, 0
        self._down = LogNormals(seed, CLIENT_DOWN, network.client_sigma)
        self._up = LogNormals(seed, CLIENT_UP, network.client_sigma)
        self._down_speed = [_MB * float(speed) for speed in network.client_down]
        self._up_speed = [_MB * float(speed) for speed in network.client_up]
        self._queue, self._numbers = list[tuple](), itertools.count()
        self._sending = Link(network.contention, self._queue, _SENT, self._numbers)
        self._receiving = Link(network.contention, self._queue, RECEIVED, self._numbers)
        self._joinable: dict[tuple[int, int], Stream] = {}  # by (version, the transport's number of the stream)
        self._downloading: dict[int, Flight] = {}
        self._received = 0  # by clients, since the last `count`
        self._landing: list[Flight] = []  # their uploads have ended at this instant
        self._landed: list[Flight] = []  # ... whose turn has not come, by client id
        self._moment_s = 0.0  # the earliest of those that the last instant ties with

    @property
    def links(self) -> tuple[Link, Link]:
        """What the server sends, and what it receives."""
        return self._sending, self._receiving

    def begin_window(self, server_up: float, server_down: float) -> None:
        """New rates of the server, bytes/s; streams of older versions take no new clients."""
        self._sending.set_capacity(server_up)
        self._receiving.set_capacity(server_down)
        self._joinable.clear()

    def dispatch(self, flights: Iterable[Flight], streams: list[int], now_s: float) -> int:
        """Sends models; `streams` is [M], of `Transport.streams`. Returns the bytes the server has to send for them."""
        to_send = 0
        self.batch += 1
        for flight in flights:
            client = flight.client
            self.flights[client] = self._downloading[client] = flight
            flight.values.rate = rate = self._down_rate(flight, now_s)
            if flight.mask is not None:
                flight.mask.rate = rate
                flight.mask_stream = Stream((self.batch, MASK, 0, client), now_s)
                flight.mask_stream.join(flight.mask, now_s)
                self._sending.touch(flight.mask_stream)
                to_send += flight.mask.prefix
            to_send += self._join(flight, streams[client], now_s)
        return to_send

    def peek(self) -> float:
        """Time of the next event, s; infinite if nothing is under way."""
        if self._landed:
            return self._moment_s
        queue = self._queue
        while queue and queue[0][4] != queue[0][3].stamp:  # outdated: a rate has changed since, or the round ended
            heapq.heappop(queue)
        return queue[0][0] if queue else math.inf

    def settle(self, now_s: float, most: int | None = None, close_s: float = math.inf) -> list[Arrival]:
        """Handles everything that happens at this instant, or ties with it; returns the arrivals by client id.

        Args:
          now_s: simulated s.
          most: so many arrivals at most; the others are in flight until a later call.
          close_s: the window's end, where it is known: what arrives at it arrives no later.
        """
        if after(now_s, self._moment_s):
            self._moment_s = now_s
        self._process(now_s)
        if self._landing:
            self._line_up(close_s)
        if not self._landed:
            return []
        ended, self._landed = self._landed, []
        if most is not None:
            ended, self._landed = ended[:most], ended[most:]
        for flight in ended:
            del self.flights[flight.client]
        return [flight.arrival() for flight in ended]

    def _line_up(self, close_s: float) -> None:
        """Gives what has landed at this instant one time, and a place by client id."""
        moment_s = min(close_s, *(flight.landed_s for flight in self._landing if flight.landed_s is not None))
        for flight in self._landing:
            flight.landed_s = moment_s
        self._landed += self._landing
        if len(self._landed) > 1:
            self._landed.sort(key=lambda flight: flight.client)
        self._landing = []

    def _process(self, now_s: float) -> None:
        """Handles events, each at its own time, and shares what they leave, until nothing is left of this instant."""
        queue, last_s = self._queue, until(now_s)
        while True:
            while queue and queue[0][0] <= last_s:
                self._handle(heapq.heappop(queue))
            if not (self._sending.dirty or self._receiving.dirty):
                return
            if self._sending.dirty:
                self._sending.share(now_s)
            if self._receiving.dirty:
                self._receiving.share(now_s)

    def count(self, now_s: float) -> tuple[int, int, int]:
        """Whole bytes since the last call: sent by the server, received by clients, received by the server."""
        received, self._received = self._received, 0
        for client, flight in list(self._downloading.items()):
            done = flight.values.end_s is not None and flight.values.end_s <= until(now_s)
            got = max(flight.counted, flight.received(now_s))
            received += got - flight.counted
            flight.counted = got
            if done:
                del self._downloading[client]
        return self._sending.count(now_s), received, self._receiving.count(now_s)

    def _down_rate(self, flight: Flight, now_s: float) -> float:
        """Own rate of its download, bytes/s."""
        return self._down_speed[flight.client] * self._down.factor(flight.client, flight.index)

    def _up_rate(self, client: int, index: int, size: int, now_s: float) -> float:
        """Own rate of an upload of `size` bytes, bytes/s."""
        return self._up_speed[client] * self._up.factor(client, index)

    def _join(self, flight: Flight, number: int, now_s: float) -> int:
        """Lets a client take its values from the transport's stream; returns the bytes that are sent for it alone."""
        receiver = flight.values
        if receiver.prefix == 0:
            receiver.sent_s, receiver.keeps_up = now_s, flight.mask is None
            self._resolve(flight)
            return 0
        stream = self._stream_for(flight, number, now_s)
        before = stream.groups[0].prefix if stream.groups else int(stream.sent)
        if stream.join(receiver, now_s):
            flight.stream = stream
            self._sending.touch(stream)
        self._resolve(flight)
        return max(0, receiver.prefix - before)

    def _stream_for(self, flight: Flight, number: int, now_s: float) -> Stream:
        """The stream of its version that a client joins, or a new one; the key is the begin order in a direction."""
        if not self._transport.shares:
            return Stream((self.batch, VALUES, 0, flight.client), now_s)
        name = (flight.version, number)
        found = self._joinable.get(name)
        if found is None:
            size = flight.values.prefix if self._transport.smallest_first else 0
            found = self._joinable[name] = Stream((self.batch, VALUES, size, number), now_s)
        return found

    def _resolve(self, flight: Flight) -> None:
        """Plans the upload once the end of the download is known."""
        if flight.values.resolve():
            assert flight.values.end_s is not None
            flight.computed_s = flight.values.end_s + flight.compute_s
            self._push(flight.computed_s, _COMPUTED, flight)

    def _handle(self, event: tuple) -> None:
        time_s, _, kind, subject, stamp = event
        self.events += 1
        if stamp != subject.stamp:
            return
        if kind == _COMPUTED:
            self._begin_upload(subject, time_s)
        elif kind == _MASKED:
            subject.values.ready_s = time_s
            subject.mask_stream = None
            self._resolve(subject)
        elif kind == RECEIVED:
            (receiver,) = self._receiving.reach(subject, time_s)
            self._land(self.flights[receiver.client], time_s)
        else:
            for receiver in self._sending.reach(subject, time_s):
                flight = self.flights[receiver.client]
                if receiver is flight.mask:
                    receiver.resolve()
                    self._push(receiver.end_s, _MASKED, flight)
                else:
                    flight.stream = None
                    self._resolve(flight)

    def _begin_upload(self, flight: Flight, now_s: float) -> None:
        flight.uploading = True
        if flight.up_bytes == 0:
            self._land(flight, now_s)
            return
        self._send_up(flight.client, flight.index, flight.up_bytes, now_s)

    def _send_up(self, client: int, index: int, size: int, now_s: float) -> Stream:
        stream = Stream((self._moment_s, client), now_s)  # of those that begin at one moment the lowest id goes first
        stream.join(Receiver(client, size, self._up_rate(client, index, size, now_s), now_s), now_s)
        self._receiving.touch(stream)
        return stream

    def _land(self, flight: Flight, now_s: float) -> None:
        """The last byte has arrived; the client's turn comes with `settle`."""
        flight.landed_s = now_s
        self._landing.append(flight)
        if self._downloading.pop(flight.client, None) is not None:
            self._received += flight.down_bytes - flight.counted
            flight.counted = flight.down_bytes

    def _push(self, time_s: float | None, kind: int, flight: Flight) -> None:
        heapq.heappush(self._queue, (time_s, next(self._numbers), kind, flight, 0))

    def adopt(
        self, batch: int, now_s: float, flights: Iterable[Flight], sending: list[Stream], receiving: list[Stream]
    ) -> None:
        """Takes over all that is in flight from `VectorizedClock`, on a new object, between windows."""
        self.batch, self._moment_s = batch, max((stream.key[0] for stream in receiving), default=0.0)
        for flight in flights:
            self.flights[flight.client] = flight
            if flight.landed_s is not None:
                self._landed.append(flight)
            elif flight.values.end_s is None or flight.values.end_s > until(now_s):
                self._downloading[flight.client] = flight
            if flight.computed_s is not None and not flight.uploading:
                self._push(flight.computed_s, _COMPUTED, flight)
        for link, streams in ((self._sending, sending), (self._receiving, receiving)):
            fastest = max((stream.own_rate for stream in streams), default=0.0)
            link.restore({"_capacity": 0.0, "_left": 0.0, "_since_all": len(streams), "_fastest": fastest}, streams)

    def to_state(self) -> dict[str, Any]:
        """Between windows only: everything that is under way."""
        return {
            "flights": [flight.to_state() for _, flight in sorted(self.flights.items())],
            "downloading": sorted(self._downloading),
            "sending": [stream.to_state() for stream in self._sending.active],
            "receiving": [upload_state(stream) for stream in self._receiving.active],
            "links": [self._sending.to_state(), self._receiving.to_state()],
            "batch": self.batch,
            "moment_s": self._moment_s,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `to_state`, on a new object."""
        self.batch, self._moment_s = state["batch"], state.get("moment_s", 0.0)  # a checkpoint may be without it
        self.flights = {entry["client"]: Flight.from_state(entry) for entry in state["flights"]}
        self._landed = [flight for flight in self.flights.values() if flight.landed_s is not None]
        self._downloading = {client: self.flights[client] for client in state["downloading"]}
        self._sending.restore(state["links"][0], downloads_from(state["sending"], self.flights))
        self._receiving.restore(state["links"][1], uploads_from(state["receiving"]))
        for flight in self.flights.values():
            if flight.computed_s is not None and not flight.uploading:
                self._push(flight.computed_s, _COMPUTED, flight)

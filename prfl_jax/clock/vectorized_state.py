"""Converts between the arrays of `VectorizedClock` and the streams and flights of the event-by-event clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prfl_jax.clock.flight import MASK, VALUES, Flight
from prfl_jax.clock.stream import Receiver, Stream
from prfl_jax.clock.ties import moments, until
from prfl_jax.clock.transports import Transport

# name -> a value for each flight
Columns = dict[str, np.ndarray]


@dataclasses.dataclass
class SharedStream:
    """A stream that several clients take from: it reaches `prefixes[k]` at `times[k]`, at `rates[k]` until then."""

    group: int
    version: int
    begin: float
    prefixes: list[int]
    times: list[float]
    rates: list[float]
    clients: list[int]
    counted: int = 0

    def sent_at(self, now_s: float) -> float:
        """As `Stream.sent_at`."""
        before, since = 0.0, self.begin
        for prefix, time, rate in zip(self.prefixes, self.times, self.rates, strict=True):
            if time > until(now_s):
                return before if now_s < since else min(before + rate * (now_s - since), float(prefix))
            before, since = float(prefix), time
        return before


def overwrite(values: np.ndarray, known: Sequence[float | None]) -> None:
    """Replaces computed values by those that are known, where they are."""
    for k, value in enumerate(known):
        if value is not None:
            values[k] = value


def times_of(sent: float, since: float, prefixes: Sequence[int], rates: Sequence[float]) -> list[float]:
    """When a stream that stands at `sent` at `since` reaches each prefix."""
    times = []
    for prefix, rate in zip(prefixes, rates, strict=True):
        since, sent = since + (prefix - sent) / rate, float(prefix)
        times.append(since)
    return times


def shared_from(stream: Stream, flights: Mapping[int, Flight]) -> SharedStream:
    """A stream of the events that has had its own rate all the time, from where it stands on."""
    groups = stream.groups[::-1]  # the smallest prefix first
    prefixes, fastest = [group.prefix for group in groups], 0.0
    rates: list[float] = []
    for group in stream.groups:
        fastest = max(fastest, group.rate)
        rates.insert(0, fastest)
    times = times_of(stream.sent, stream.since_s, prefixes, rates)
    if stream.sent:
        prefixes, times, rates = [int(stream.sent), *prefixes], [stream.since_s, *times], [stream.peak_rate, *rates]
    clients = sorted(receiver.client for group in groups for receiver in group.receivers)
    version = flights[clients[0]].version
    return SharedStream(stream.key[3], version, stream.begin_s, prefixes, times, rates, clients, stream.counted)


def single(key: tuple, begin_s: float, receiver: Receiver, counted: int) -> Stream:
    """A stream for one client that has had its own rate since it began."""
    stream = Stream(key, begin_s)
    stream.join(receiver, begin_s)
    stream.set_rate(receiver.rate, begin_s)
    stream.counted = counted
    return stream


def columns_of(flights: Sequence[tuple[Flight, Stream | None]], own_streams: bool) -> Columns:
    """What flights of the events say of themselves, by name; the times that follow from it are not among them.

    Args:
      flights: each with its upload, where that is under way.
      own_streams: the values of each dispatch are a stream of its own.
    """
    rows = []
    for flight, upload in flights:
        mask = 0 if flight.mask is None else flight.mask.prefix
        own = flight.stream if own_streams else None
        last = flight.stream or flight.mask_stream
        landed = 0 if flight.landed_s is None else flight.up_bytes
        rows.append(
            {
                "index": flight.index,
                "version": flight.version,
                "batch": 0 if last is None else last.key[0],
                "down": flight.values.prefix,
                "mask": mask,
                "up": flight.up_bytes,
                "sent_counted": flight.values.prefix if own is None else own.counted,
                "mask_counted": mask if flight.mask_stream is None else flight.mask_stream.counted,
                "got_counted": flight.counted,
                "up_counted": upload.counted if upload is not None else landed,
                "dispatched": flight.dispatched_s,
                "compute": flight.compute_s,
                "down_rate": flight.values.rate,
            }
        )
    dtype = dict.fromkeys(("dispatched", "compute", "down_rate"), np.float64)
    return {name: np.array([row[name] for row in rows], dtype.get(name, np.int64)) for name in _KNOWN}


def flight_from(client: int, one: dict[str, Any], now_s: float) -> Flight:
    """A flight as the events would have it by now."""
    start, rate, last_s = one["dispatched"], one["down_rate"], until(now_s)
    masked = one["mask"] == 0 or one["ready"] <= last_s
    values = Receiver(client, one["down"], rate, one["ready"] if masked else None)
    if one["sent"] <= last_s:
        values.sent_s, values.earliest_s = one["sent"], start
    if one["end"] <= last_s or (values.sent_s is not None and masked):
        values.end_s = one["end"]
    mask = None
    if one["mask"]:
        mask = Receiver(client, one["mask"], rate, start)
        if masked:
            mask.sent_s, mask.end_s, mask.keeps_up, mask.earliest_s = one["ready"], one["ready"], True, start
    known = values.end_s is not None
    return Flight(
        client,
        one["index"],
        one["version"],
        start,
        one["compute"],
        one["up"],
        values=values,
        mask=mask,
        counted=one["got_counted"],
        computed_s=one["computed"] if known else None,
        uploading=known and one["computed"] <= last_s,
        landed_s=one["arrived"] if one["arrived"] <= last_s else None,
    )


def to_objects(
    rows: Mapping[int, dict[str, Any]], shared: Sequence[SharedStream], transport: Transport, now_s: float
) -> tuple[list[Flight], list[Stream], list[Stream]]:
    """(flights, streams that are still sent, uploads under way) as the events would have them by now.

    Args:
      rows: by client, ascending: the columns of its flight.
      shared: the streams that several clients take from.
    """
    flights: dict[int, Flight] = {}
    sending: list[Stream] = []
    uploads: list[tuple[float, int]] = []  # (when it began, client)
    for client, one in rows.items():
        flights[client] = flight = flight_from(client, one, now_s)
        if flight.mask is not None and flight.mask.end_s is None:
            key = (one["batch"], MASK, 0, client)
            flight.mask_stream = single(key, one["dispatched"], flight.mask, one["mask_counted"])
            sending.append(flight.mask_stream)
        if not transport.shares and one["sent"] > until(now_s):
            key = (one["batch"], VALUES, 0, client)
            flight.stream = single(key, one["dispatched"], flight.values, one["sent_counted"])
            sending.append(flight.stream)
        if flight.uploading and flight.landed_s is None:
            uploads.append((one["computed"], client))
    uploads.sort()
    receiving = []
    for (_, client), moment_s in zip(uploads, moments(np.array([begin for begin, _ in uploads])).tolist(), strict=True):
        one = rows[client]
        receiver = Receiver(client, one["up"], one["up_rate"], one["computed"])
        receiving.append(single((moment_s, client), one["computed"], receiver, one["up_counted"]))
    for stream in shared:
        if stream.times[-1] > until(now_s):
            sending.append(_stream(stream, rows, flights, transport, now_s))
    return list(flights.values()), sending, receiving


def _stream(
    shared: SharedStream,
    rows: Mapping[int, dict[str, Any]],
    flights: Mapping[int, Flight],
    transport: Transport,
    now_s: float,
) -> Stream:
    """A shared stream in the middle of its way."""
    size = shared.prefixes[-1] if transport.smallest_first else 0
    receivers = [
        flights[client].values
        for client in shared.clients
        if client in flights and flights[client].version == shared.version
    ]
    first = min(receivers, key=lambda receiver: receiver.client)
    stream = Stream((rows[first.client]["batch"], VALUES, size, shared.group), shared.begin)
    for receiver in receivers:
        if receiver.sent_s is None:
            stream.join(receiver, shared.begin)
            flights[receiver.client].stream = stream
    done = sum(time <= until(now_s) for time in shared.times)
    stream.set_rate(shared.rates[0], shared.begin)
    if done:
        stream.sent, stream.since_s = float(shared.prefixes[done - 1]), shared.times[done - 1]
        stream.rate = shared.rates[done]
    stream.own_rate = shared.rates[done]
    stream.counted = shared.counted
    return stream


_KNOWN = (
    *("index", "version", "batch", "down", "mask", "up"),
    *("sent_counted", "mask_counted", "got_counted", "up_counted"),
    *("dispatched", "compute", "down_rate"),
)

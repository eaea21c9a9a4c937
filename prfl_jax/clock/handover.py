"""Streams and flights of `quiet.py`: as it keeps them, and made from and into the objects of the events."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prfl_jax.clock.flight import Flight
from prfl_jax.clock.stream import Stream, Taker


@dataclasses.dataclass
class Shared:
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
            if time > now_s:
                return min(before + rate * (now_s - since), float(prefix))
            before, since = float(prefix), time
        return before


def put_over(values: np.ndarray, known: Sequence[float | None]) -> None:
    """Puts what is known in the place of what would have been."""
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


def shared_from(stream: Stream, flights: Mapping[int, Flight]) -> Shared:
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
    clients = sorted(taker.client for group in groups for taker in group.takers)
    version = flights[clients[0]].version
    return Shared(stream.key[3], version, stream.begin_s, prefixes, times, rates, clients, stream.counted)


def single(key: tuple, begin_s: float, taker: Taker, counted: int) -> Stream:
    """A stream for one client that has had its own rate since it began."""
    stream = Stream(key, begin_s)
    stream.join(taker, begin_s)
    stream.set_rate(taker.rate, begin_s)
    stream.counted = counted
    return stream


def flight_from(client: int, one: dict[str, Any], now_s: float) -> Flight:
    """A flight as the events would have it by now."""
    start, rate = one["dispatched"], one["down_rate"]
    masked = one["mask"] == 0 or one["ready"] <= now_s
    values = Taker(client, one["down"], rate, one["ready"] if masked else None)
    if one["sent"] <= now_s:
        values.sent_s, values.earliest_s = one["sent"], start
    if one["end"] <= now_s or (values.sent_s is not None and masked):
        values.end_s = one["end"]
    mask = None
    if one["mask"]:
        mask = Taker(client, one["mask"], rate, start)
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
        uploading=known and one["computed"] <= now_s,
    )

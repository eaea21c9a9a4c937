"""One direction of the server's connection: strict priority among streams, nothing left idle."""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Iterator

from prfl_jax.clock.stream import Stream, Taker

_RESIDUE = 1e-12  # a share of the capacity below which nothing is left to give


class Link:
    """Shares the server's rate: at each instant the earliest-begun stream takes what it can, the rest goes on.

    Args:
      contention: False: every stream gets min(own rate, capacity), whatever the others do.
      queue: heap of events (time_s, number, kind, object, stamp) that this link adds to.
      kind: kind of the events "the frontier of a stream reaches a prefix".
      numbers: the events' numbers (a heap must never compare the objects).
    """

    def __init__(self, contention: bool, queue: list, kind: int, numbers: Iterator[int]) -> None:
        self.active: list[Stream] = []  # in begin order
        self.dirty = False
        self._contention = contention
        self._queue = queue
        self._kind = kind
        self._numbers = numbers
        self.capacity = 0.0  # bytes/s
        self._moved = 0  # bytes of streams that ended since the last `count`
        self._served = 0  # streams from this place on have rate 0
        self._changed: list[Stream] = []
        self._all_changed = False

    def set_capacity(self, capacity: float) -> None:
        """The server's rate from now on, bytes/s."""
        if capacity != self.capacity:
            self.capacity = capacity
            self._all_changed = self.dirty = True

    def touch(self, stream: Stream) -> None:
        """A stream is new or has new clients: it takes part in the next sharing."""
        place = bisect.bisect_left(self.active, stream.key, key=_key)
        if place == len(self.active) or self.active[place] is not stream:
            self.active.insert(place, stream)
            if place < self._served:
                self._served += 1
        self._changed.append(stream)
        self.dirty = True

    def reach(self, stream: Stream, now_s: float) -> list[Taker]:
        """The frontier of a stream has reached a prefix; a stream that has sent everything leaves the link."""
        takers = stream.reach(now_s)
        self._changed.append(stream)
        self.dirty = True
        if not stream.groups:
            stream.rate = 0.0
            place = bisect.bisect_left(self.active, stream.key, key=_key)
            del self.active[place]
            if place < self._served:
                self._served -= 1
            self._moved += int(stream.sent) - stream.counted
            stream.counted = int(stream.sent)
        return takers

    def share(self, now_s: float) -> None:
        """Gives every stream its rate from now on and plans its next event."""
        if self._contention:
            left = self.capacity
            served = 0
            for place, stream in enumerate(self.active):
                if left == 0.0 and place >= self._served:
                    break
                rate = min(stream.own_rate, left)
                left -= rate
                if left <= _RESIDUE * self.capacity:
                    left = 0.0
                if rate > 0.0:
                    served = place + 1
                self._set(stream, rate, now_s)
            self._served = served
        else:
            for stream in self.active if self._all_changed else self._changed:
                if stream.groups:
                    self._set(stream, min(stream.own_rate, self.capacity), now_s)
        self._changed.clear()
        self._all_changed = self.dirty = False

    def count(self, now_s: float) -> int:
        """Whole bytes that passed since the last call."""
        moved, self._moved = self._moved, 0
        for stream in self.active:
            if stream.rate > 0.0 or stream.sent > stream.counted:
                sent = max(stream.counted, math.floor(stream.sent_at(now_s)))
                moved += sent - stream.counted
                stream.counted = sent
        return moved

    def restore(self, capacity: float, streams: list[Stream]) -> None:
        """Puts saved streams back, with their events."""
        self.capacity = capacity
        self.active = sorted(streams, key=_key)
        for place, stream in enumerate(self.active):
            if stream.rate > 0.0:
                self._served = place + 1
            if stream.due_s < math.inf:
                self._announce(stream)

    def _set(self, stream: Stream, rate: float, now_s: float) -> None:
        if rate != stream.rate:
            stream.set_rate(rate, now_s)
        if stream.plan():
            self._announce(stream)

    def _announce(self, stream: Stream) -> None:
        heapq.heappush(self._queue, (stream.due_s, next(self._numbers), self._kind, stream, stream.stamp))


def _key(stream: Stream) -> tuple:
    return stream.key

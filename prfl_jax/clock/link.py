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
        self._capacity = 0.0  # bytes/s
        self._moved = 0  # bytes of streams that ended since the last `count`
        self._left = 0.0  # capacity nobody can use
        self._freed: list[float] = []  # rates of streams that ended since the last `share`
        self._served = 0  # all before the last of these have their own rate, all after it rate 0
        self._changed: list[Stream] = []
        self._all_changed = False

    def set_capacity(self, capacity: float) -> None:
        """The server's rate from now on, bytes/s; everything is shared anew."""
        self._capacity = capacity
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
            self._freed.append(stream.rate)
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
        if self._contention and self._all_changed:
            self._share_all(now_s)
        elif self._contention:
            self._share_changed(now_s)
        else:
            for stream in self.active if self._all_changed else self._changed:
                if stream.groups:
                    self._set(stream, min(stream.own_rate, self._capacity), now_s)
        self._changed.clear()
        self._freed.clear()
        self._all_changed = self.dirty = False

    def _share_all(self, now_s: float) -> None:
        """Down the begin order from the first stream."""
        left = self._capacity
        served = 0
        for place, stream in enumerate(self.active):
            rate = min(stream.own_rate, left)
            left = self._rest(left - rate)
            if rate > 0.0:
                served = place + 1
            self._set(stream, rate, now_s)
        self._left, self._served = left, served

    def _share_changed(self, now_s: float) -> None:
        """The same result, looking only at streams that changed and at those that give to or get from them.

        Sorted, and with an exact sum: which of two events at one instant came first must not matter.
        """
        left = self._left + math.fsum(self._freed)
        served = self._served
        changed = sorted({stream for stream in self._changed if stream.groups}, key=_key)
        rates = {stream: stream.rate for stream in changed}
        for stream in changed:
            if rates[stream] > stream.own_rate:
                left += rates[stream] - stream.own_rate
                rates[stream] = stream.own_rate
        for stream in changed:
            need = stream.own_rate - rates[stream]
            if need <= 0.0:
                continue
            given = min(left, need)
            left, need = left - given, self._rest(need - given)
            place = bisect.bisect_left(self.active, stream.key, key=_key)
            while need > 0.0 and served - 1 > place:  # the last that is served gives first
                last = self.active[served - 1]
                held = rates.get(last, last.rate)
                given = min(held, need)
                need = self._rest(need - given)
                rates[last] = self._rest(held - given)
                if rates[last] == 0.0:
                    served -= 1
            rates[stream] = self._rest(stream.own_rate - need)
            if rates[stream] > 0.0:
                served = max(served, place + 1)
        while served and rates.get(self.active[served - 1], self.active[served - 1].rate) == 0.0:
            served -= 1
        left = self._rest(left)
        place = max(served - 1, 0)
        while left > 0.0 and place < len(self.active):  # what is left goes on down the begin order
            stream = self.active[place]
            given = min(left, stream.own_rate - rates.get(stream, stream.rate))
            if given > 0.0:
                rates[stream] = min(stream.own_rate, rates.get(stream, stream.rate) + given)
                left = self._rest(left - given)
                served = place + 1
            place += 1
        for stream, rate in rates.items():
            self._set(stream, rate, now_s)
        self._left, self._served = left, served

    def _rest(self, rate: float) -> float:
        """A rate that is left over after a subtraction; rounding leaves nothing."""
        return rate if rate > _RESIDUE * self._capacity else 0.0

    def count(self, now_s: float) -> int:
        """Whole bytes that passed since the last call."""
        moved, self._moved = self._moved, 0
        for stream in self.active:
            if stream.rate > 0.0 or stream.sent > stream.counted:
                sent = max(stream.counted, math.floor(stream.sent_at(now_s)))
                moved += sent - stream.counted
                stream.counted = sent
        return moved

    def restore(self, streams: list[Stream]) -> None:
        """Puts saved streams back, with their events; the next window shares anew."""
        self.active = sorted(streams, key=_key)
        for stream in self.active:
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

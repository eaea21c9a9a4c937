"""One direction of the server's connection: streams get its rate by strict priority, and no rate is left unused."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import Any

from sortedcontainers import SortedKeyList

from prfl_jax.clock.stream import Receiver, Stream

_RESIDUE = 1e-12  # a share of the capacity below which nothing is left to give
_FEW = 64  # streams that may be shared among anew in every window


class Link:
    """Shares the server's rate: at each instant the earliest-begun stream takes what it can, the next ones the rest.

    Args:
      contention: False: every stream gets min(own rate, capacity), whatever the others do.
      queue: heap of events (time_s, number, kind, object, stamp) that this link adds to.
      kind: kind of the events "the frontier of a stream reaches a prefix".
      numbers: the events' numbers (a heap must never compare the objects).
    """

    def __init__(self, contention: bool, queue: list, kind: int, numbers: Iterator[int]) -> None:
        self.active = SortedKeyList(key=_key)  # streams in begin order
        self.dirty = False
        self._contention = contention
        self._queue = queue
        self._kind = kind
        self._numbers = numbers
        self._capacity = 0.0  # bytes/s
        self._moved = 0  # bytes of streams that ended since the last `count`
        self._left = 0.0  # capacity nobody can use; below 0: what is to be taken back
        self._freed: list[float] = []  # rates of streams that ended since the last `share`
        self._last: Stream | None = None  # the last one served: all before it have their own rate, all after it 0
        self._changed: set[Stream] = set()
        self._all_changed = False
        self._since_all = 0  # sharings since the last one among all
        self._fastest = 0.0  # own rate of any stream so far

    def set_capacity(self, capacity: float) -> None:
        """The server's rate from now on, bytes/s; everything is shared anew."""
        before, self._capacity = self._capacity, capacity
        self.dirty = True
        if not self._contention:
            self._all_changed = self._fastest > min(before, capacity)
        elif len(self.active) <= max(_FEW, self._since_all):  # so that its cost is spread over as many sharings
            self._all_changed = True
        else:
            self._left += capacity - before

    def touch(self, stream: Stream) -> None:
        """A stream is new or has new clients: it takes part in the next sharing."""
        if not stream.active:
            stream.active = True
            self.active.add(stream)
        self._fastest = max(self._fastest, stream.own_rate)
        self._changed.add(stream)
        self.dirty = True

    def reach(self, stream: Stream, now_s: float) -> list[Receiver]:
        """The frontier of a stream has reached a prefix; a stream that has sent everything leaves the link."""
        receivers = stream.reach(now_s)
        self.dirty = True
        if stream.groups:
            self._changed.add(stream)
        else:
            self._drop(stream)
        return receivers

    def leave(self, stream: Stream, receiver: Receiver, now_s: float) -> None:
        """A client's download or upload is given up; what was sent until now stays counted."""
        stream.leave(receiver, now_s)
        self.dirty = True
        if stream.groups:
            self._changed.add(stream)
        else:
            self._drop(stream)

    def _drop(self, stream: Stream) -> None:
        """No client needs more of a stream: others get its rate."""
        self._changed.discard(stream)
        self._freed.append(stream.rate)
        stream.rate = 0.0
        if stream is self._last:
            self._last = self._before(stream)
        self.active.remove(stream)
        stream.active = False
        self._moved += int(stream.sent) - stream.counted
        stream.counted = int(stream.sent)

    def at_own_rates(self) -> bool:
        """Whether every stream has its own rate."""
        last = self._last
        if not self._contention or not self.active:
            return True
        return last is not None and last is self.active[-1] and last.rate == last.own_rate

    def share(self, now_s: float) -> None:
        """Gives every stream its rate from now on and plans its next event."""
        self._since_all += 1
        if self._contention and self._all_changed:
            self._share_all(now_s)
        elif self._contention:
            self._share_changed(now_s)
        else:
            for stream in self.active if self._all_changed else sorted(self._changed, key=_key):
                self._set(stream, min(stream.own_rate, self._capacity), now_s)
        self._changed.clear()
        self._freed.clear()
        self._all_changed = self.dirty = False

    def _share_all(self, now_s: float) -> None:
        """Down the begin order from the first stream."""
        left = self._capacity
        self._last = None
        for stream in self.active:
            rate = min(stream.own_rate, left)
            left = self._rest(left - rate)
            if rate > 0.0:
                self._last = stream
            self._set(stream, rate, now_s)
        self._left = left
        self._since_all = 0

    def _share_changed(self, now_s: float) -> None:
        """The same result, looking only at streams that changed and at those that give to or get from them.

        Sorted, and with an exact sum: which of two events at one instant came first must not matter.
        """
        left = self._left + math.fsum(self._freed)
        changed = sorted(self._changed, key=_key)
        rates = {stream: stream.rate for stream in changed}
        for stream in changed:
            if rates[stream] > stream.own_rate:
                left += rates[stream] - stream.own_rate
                rates[stream] = stream.own_rate
        if left < 0.0:
            self._take_back(-left, None, rates)
            left = 0.0
        for stream in changed:
            need = stream.own_rate - rates[stream]
            if need <= 0.0:
                continue
            left = self._give(left, stream, rates)
            given = min(left, need)
            left, need = left - given, self._rest(need - given)
            need = self._take_back(need, stream, rates)
            rates[stream] = self._rest(stream.own_rate - need)
            if rates[stream] > 0.0 and (self._last is None or self._last.key < stream.key):
                self._last = stream
        while self._last is not None and rates.get(self._last, self._last.rate) == 0.0:
            self._last = self._before(self._last)
        left = self._give(self._rest(left), None, rates)
        for stream, rate in rates.items():
            self._set(stream, rate, now_s)
        self._left = left

    def _give(self, left: float, until: Stream | None, rates: dict[Stream, float]) -> float:
        """Gives what is left down the begin order, to those before `until`; returns the rest."""
        if left <= 0.0 or (until is not None and self._last is not None and until.key <= self._last.key):
            return left
        for stream in self._from_last(rates):
            if left == 0.0 or stream is until:
                break
            given = min(left, stream.own_rate - rates.get(stream, stream.rate))
            if given > 0.0:
                rates[stream] = min(stream.own_rate, rates.get(stream, stream.rate) + given)
                left = self._rest(left - given)
                self._last = stream
        return left

    def _take_back(self, need: float, stream: Stream | None, rates: dict[Stream, float]) -> float:
        """Takes from the last that is served first, down to `stream`; returns what is still missing."""
        while need > 0.0 and self._last is not None and (stream is None or stream.key < self._last.key):
            last = self._last
            held = rates.get(last, last.rate)
            given = min(held, need)
            need = self._rest(need - given)
            rates[last] = self._rest(held - given)
            if rates[last] == 0.0:
                self._last = self._before(last)
        return need

    def _before(self, stream: Stream) -> Stream | None:
        """The stream just before in the begin order."""
        earlier = self.active.irange_key(max_key=stream.key, inclusive=(True, False), reverse=True)
        return next(earlier, None)

    def _from_last(self, rates: dict[Stream, float]) -> Iterator[Stream]:
        """The last stream that is served and those after it; none where that one is the very last and has its rate."""
        last = self._last
        if last is None:
            return iter(self.active)
        if last is self.active[-1] and rates.get(last, last.rate) == last.own_rate:
            return iter(())
        return self.active.irange_key(min_key=last.key)

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

    def to_state(self) -> dict[str, Any]:
        """Everything but the streams, between windows."""
        return {name: getattr(self, name) for name in _PLAIN}

    def restore(self, state: dict[str, Any], streams: list[Stream]) -> None:
        """Inverse of `to_state`, on a new object; puts saved streams back, with their events."""
        for name in _PLAIN:
            setattr(self, name, state[name])
        self.active.update(streams)
        for stream in self.active:
            stream.active = True
            if stream.rate > 0.0:
                self._last = stream
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


_PLAIN = ("_capacity", "_left", "_since_all", "_fastest")

"""One stream of bytes through the server, and the clients that receive or send it."""

from __future__ import annotations

import bisect
import math
from typing import Any

from prfl_jax.clock.ties import until

_NEVER = math.inf


class Receiver:
    """One client's part in a stream: the first `prefix` bytes, at up to `rate` bytes/s, from `ready_s` on.

    `ready_s` is None while the client still waits for its mask; `sent_s` is None until the prefix is
    sent; `end_s` is None until both are known.
    """

    __slots__ = ("client", "prefix", "rate", "ready_s", "sent_s", "earliest_s", "keeps_up", "end_s")

    def __init__(self, client: int, prefix: int, rate: float, ready_s: float | None) -> None:
        self.client = client
        self.prefix = prefix
        self.rate = rate
        self.ready_s = ready_s
        self.sent_s: float | None = None
        self.earliest_s = -_NEVER  # max of s - A(s)/rate over the corners of A (set with sent_s)
        self.keeps_up = False  # it takes each byte as it is sent, so it ends with the prefix, without rounding
        self.end_s: float | None = None

    def resolve(self) -> bool:
        """Sets `end_s` if it is known by now: when the last byte leaves a buffer that was filled along A(t).

        By t the client has taken R(t) = min over s <= t of A(s) + rate * (t - s), and
        rate * (t - ready_s) at most.
        """
        if self.ready_s is None or self.sent_s is None:
            return False
        if self.keeps_up:
            self.end_s = self.sent_s
        else:
            self.end_s = max(self.sent_s, max(self.ready_s, self.earliest_s) + self.prefix / self.rate)
        return True

    def taken_at(self, now_s: float, stream: Stream | None) -> int:
        """Whole bytes taken by now, R(now_s); `stream` may be None once the prefix is sent."""
        if self.end_s is not None and self.end_s <= until(now_s):
            return self.prefix
        if self.ready_s is None or self.ready_s >= now_s:
            return 0
        available, earliest = float(self.prefix), self.earliest_s
        if self.sent_s is None and stream is not None:
            available = min(available, stream.sent_at(now_s))
            earliest = stream.earliest(self.rate)
        taken = min((now_s - max(self.ready_s, earliest)) * self.rate, available)
        return max(0, math.floor(taken))

    def to_state(self) -> list[Any]:
        earliest = None if self.earliest_s == -_NEVER else self.earliest_s
        return [self.client, self.prefix, self.rate, self.ready_s, self.sent_s, earliest, self.keeps_up, self.end_s]

    @classmethod
    def from_state(cls, state: list[Any]) -> Receiver:
        receiver = cls(*state[:4])
        receiver.sent_s, earliest, receiver.keeps_up, receiver.end_s = state[4:]
        receiver.earliest_s = -_NEVER if earliest is None else earliest
        return receiver


class _Group:
    """The clients that need the same prefix, and the fastest of them."""

    __slots__ = ("prefix", "receivers", "rate")

    def __init__(self, receiver: Receiver) -> None:
        self.prefix = receiver.prefix
        self.receivers = [receiver]
        self.rate = receiver.rate


class Stream:
    """Bytes that pass the server's link in one order; A(t) of them have passed by time t.

    Clients take nested prefixes, so only the frontier A(t) needs events: it stops at each distinct
    prefix. Its own rate is the highest among the clients whose prefix is not yet sent.

    Args:
      key: begin order on its link (the smallest is served first).
      begin_s: when it began, s.
    """

    __slots__ = (
        "key",
        "begin_s",
        "groups",
        "own_rate",
        "sent",
        "rate",
        "since_s",
        "due_s",
        "stamp",
        "peak_rate",
        "corners",
        "counted",
        "active",
    )

    def __init__(self, key: tuple, begin_s: float) -> None:
        self.key = key
        self.begin_s = begin_s
        self.groups: list[_Group] = []  # by prefix, the largest first
        self.own_rate = 0.0
        self.sent = 0.0  # A(since_s)
        self.rate = 0.0
        self.since_s = begin_s
        self.due_s = _NEVER  # when the frontier reaches the next prefix, if nothing changes
        self.stamp = 0  # outdates events in the queue
        self.peak_rate = 0.0
        self.corners: list[tuple[float, float]] = []  # (s, A(s)) where the rate rose, as far as needed
        self.counted = 0  # bytes already reported
        self.active = False  # on its link

    def join(self, receiver: Receiver, now_s: float) -> bool:
        """Adds a client; True if the stream has to send more, or sooner, for it."""
        sent = self.sent_at(now_s)
        if sent:  # what is sent by a moment that ties with now lies in the buffer already
            sent += self.peak_rate * (until(now_s) - now_s)
        if receiver.prefix <= sent:
            receiver.sent_s = now_s if receiver.ready_s is None else receiver.ready_s
            return False
        place = bisect.bisect_left(self.groups, -receiver.prefix, key=lambda group: -group.prefix)
        if place < len(self.groups) and self.groups[place].prefix == receiver.prefix:
            group = self.groups[place]
            group.receivers.append(receiver)
            group.rate = max(group.rate, receiver.rate)
        else:
            self.groups.insert(place, _Group(receiver))
        self.own_rate = max(self.own_rate, receiver.rate)
        self.outdate()
        return True

    def leave(self, receiver: Receiver, now_s: float) -> None:
        """Removes a client whose prefix is not sent yet; what it alone needs is not sent any more."""
        self.sent, self.since_s = self.sent_at(now_s), max(now_s, self.since_s)
        place = bisect.bisect_left(self.groups, -receiver.prefix, key=lambda group: -group.prefix)
        group = self.groups[place]
        group.receivers.remove(receiver)
        if group.receivers:
            group.rate = max(other.rate for other in group.receivers)
        else:
            del self.groups[place]
        self.own_rate = max((other.rate for other in self.groups), default=0.0)
        self.outdate()

    def sent_at(self, now_s: float) -> float:
        """A(now_s), never past the next prefix; `since_s` may be later by a tie."""
        if not self.groups or self.rate == 0.0 or now_s < self.since_s:
            return self.sent
        return min(self.sent + self.rate * (now_s - self.since_s), float(self.groups[-1].prefix))

    def earliest(self, rate: float) -> float:
        """Max of s - A(s)/rate over the past: where the frontier turned from slower to faster than `rate`."""
        corners = self.corners
        if len(corners) == 1:
            return corners[0][0] - corners[0][1] / rate
        return max((s - sent / rate for s, sent in corners), default=-_NEVER)

    def set_rate(self, rate: float, now_s: float) -> None:
        """Changes the rate of the frontier from now on."""
        self.sent = self.sent_at(now_s)
        now_s = max(now_s, self.since_s)
        self.since_s = now_s
        if rate > self.rate:
            self._add_corner(now_s, self.sent)
            self.peak_rate = max(self.peak_rate, rate)
        self.rate = rate
        self.outdate()

    def _add_corner(self, s: float, sent: float) -> None:
        """Keeps the corners that are the maximum for some rate: their upper hull in the plane (A, s)."""
        corners = self.corners
        while corners and corners[-1][1] == sent:
            corners.pop()
        while len(corners) > 1:
            (s0, sent0), (s1, sent1) = corners[-2:]
            if (s1 - s0) * (sent - sent0) > (s - s0) * (sent1 - sent0):
                break
            corners.pop()
        corners.append((s, sent))

    def outdate(self) -> None:
        self.stamp += 1
        self.due_s = _NEVER

    def plan(self) -> bool:
        """Sets `due_s` if the frontier moves and no event is planned; True if it did."""
        if self.due_s < _NEVER or self.rate == 0.0 or not self.groups:
            return False
        self.due_s = self.since_s + (self.groups[-1].prefix - self.sent) / self.rate
        return True

    def reach(self, now_s: float) -> list[Receiver]:
        """The frontier has reached the next prefix: returns the clients whose bytes are all sent."""
        group = self.groups.pop()
        self.sent = float(group.prefix)
        self.since_s = now_s
        self.own_rate = max((other.rate for other in self.groups), default=0.0)
        for receiver in group.receivers:
            receiver.sent_s = now_s
            receiver.earliest_s = self.earliest(receiver.rate)
            # There from the very beginning and at least as fast as the frontier ever was.
            receiver.keeps_up = (
                receiver.ready_s is not None and receiver.ready_s <= self.begin_s and receiver.rate >= self.peak_rate
            )
        self.outdate()
        return group.receivers

    def to_state(self) -> dict[str, Any]:
        """Everything, as JSON can hold it; receivers by their client's id."""
        state: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN}
        state["key"] = list(self.key)
        state["clients"] = [[receiver.client for receiver in group.receivers] for group in self.groups]
        state["due_s"] = None if self.due_s == _NEVER else self.due_s
        state["corners"] = [list(corner) for corner in self.corners]
        return state

    @classmethod
    def from_state(cls, state: dict[str, Any], receivers: dict[int, Receiver]) -> Stream:
        """Inverse of `to_state`; `receivers` by client."""
        stream = cls(tuple(state["key"]), state["begin_s"])
        for clients in state["clients"]:
            group = _Group(receivers[clients[0]])
            group.receivers = [receivers[client] for client in clients]
            group.rate = max(receiver.rate for receiver in group.receivers)
            stream.groups.append(group)
        for name in _PLAIN:
            setattr(stream, name, state[name])
        stream.due_s = _NEVER if state["due_s"] is None else state["due_s"]
        stream.corners = [(s, sent) for s, sent in state["corners"]]
        return stream


_PLAIN = ("begin_s", "own_rate", "sent", "rate", "since_s", "peak_rate", "counted")

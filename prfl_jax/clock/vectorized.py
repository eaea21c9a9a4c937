"""The clock's windows while nobody has to wait for the server: every time is known at the dispatch, for all at once.

Where clients are dispatched at the window's start alone, and what all streams together want is below the server's
rates, a stream always has its own rate, so that nothing has to be found out event by event. The same formulas as in
`stream.py` then give the same numbers to the bit, as arrays over thousands of clients. `VectorizedClock.run` says
whether a window was such a one; if not, `to_transfers` hands over to the events, until `adopt` finds that nothing waits
any more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from prfl_jax.clock.draws import CLIENT_DOWN, CLIENT_UP, LogNormals
from prfl_jax.clock.flight import Flight
from prfl_jax.clock.stream import Stream
from prfl_jax.clock.ties import earliest, moments, until
from prfl_jax.clock.transfers import VALUES, Transfers
from prfl_jax.clock.types import Arrival, Costs, Network
from prfl_jax.clock.vectorized_state import Shared, objects_of, put_over, shared_from, times_of

_MB = 1e6
_MARGIN = 1 - 1e-6  # of the server's rate, so that rounding decides nothing

# By client: what is in flight. Times in s, rates in bytes/s; `ready` is when the mask is there, `sent` when all values
# have been sent, `end` when they are received.
_FLOATS = ("dispatched", "down_rate", "up_rate", "compute", "ready", "sent", "end", "computed", "arrived")
_COUNTED = ("sent_counted", "mask_counted", "got_counted", "up_counted")
_INTS = ("index", "version", "batch", "down", "mask", "up", *_COUNTED)
_KNOWN = {*_INTS, "dispatched", "down_rate", "up_rate", "compute"}  # the rest follows


@dataclasses.dataclass(frozen=True)
class QuietWindow:
    """What a window held: its end, arrivals in order, and bytes as `Transfers.count` gives them."""

    end: float
    arrivals: tuple[Arrival, ...]
    counted: tuple[int, int, int]


class VectorizedClock:
    """All that is in flight, by client.

    Args:
      network: speeds, MB/s.
      transport: as for `Transfers`.
      seed: root seed of the factors.
    """

    def __init__(self, network: Network, transport: str, seed: int) -> None:
        self._network, self._transport, self._seed = network, transport, seed
        self._draw_down = LogNormals(seed, CLIENT_DOWN, network.client_sigma)
        self._draw_up = LogNormals(seed, CLIENT_UP, network.client_sigma)
        self._down_speed = _MB * np.asarray(network.client_down, np.float64)
        self._up_speed = _MB * np.asarray(network.client_up, np.float64)
        clients = network.num_clients
        self._flying = np.zeros(clients, bool)
        self._is: dict[str, np.ndarray] = {name: np.zeros(clients) for name in _FLOATS}
        self._is |= {name: np.zeros(clients, np.int64) for name in _INTS}
        self._streams: list[Shared] = []
        self._batch = 0
        self.events = 0

    @property
    def in_flight(self) -> np.ndarray:
        """Clients, by id."""
        return np.flatnonzero(self._flying)

    def run(
        self,
        version: int,
        start: float,
        clients: Sequence[int],
        index: np.ndarray,
        costs: Costs,
        mask_due: np.ndarray,
        server: tuple[float, float],
        close: Callable[[int, float], tuple[float, int, bool]],
    ) -> QuietWindow | None:
        """Dispatches at `start` and runs to the window's close; None, with nothing changed, if the server is too slow.

        Args:
          version: of the model that is sent.
          clients: who is dispatched, by id; none of them in flight.
          index: dispatches before, of each of them.
          costs: of all clients.
          mask_due: whether each of `clients` is sent its mask.
          server: its rates in this window, sending and receiving, bytes/s.
          close: of (flights, bytes to send): when the window closes at the earliest, the arrivals it needs, and whether
            it has no more than these.
        """
        who = np.asarray(clients, np.int64)
        new = self._dispatched(version, start, who, index, costs, mask_due)
        shared = self._shared_streams(version, start, who, new, costs)
        self._finish(who, new, shared)
        before = self.in_flight
        flying = np.concatenate([before, who])
        state = {name: np.concatenate([values[before], new[name]]) for name, values in self._is.items()}
        to_send = int(new["mask"].sum()) + sum(stream.prefixes[-1] for stream in shared)
        if self._transport == "unicast":
            to_send += int(new["down"].sum())
        limit, need, no_more = close(len(flying), float(to_send))
        if need > len(flying):
            return None
        end = max(limit, earliest(np.sort(state["arrived"]), need - 1)) if need else limit
        if not self._within(start, end, state, [*self._streams, *shared], server):
            return None
        # from here on things change
        self._batch += 1
        self._streams += shared
        for name, values in new.items():
            self._is[name][who] = values
        self._flying[who] = True
        self.events += self._passed(start, end, state)
        counted = self._count(end, flying, state)
        self._streams = [stream for stream in self._streams if stream.times[-1] > until(end)]
        return QuietWindow(end, self._arrivals(end, need if no_more else None, flying, state), counted)

    def _arrivals(
        self, end: float, most: int | None, flying: np.ndarray, state: dict[str, np.ndarray]
    ) -> tuple[Arrival, ...]:
        """Takes the window's arrivals out of those `flying`, in order, `most` of them at most."""
        came = np.flatnonzero(state["arrived"] <= until(end))
        came = came[np.lexsort((flying[came], state["arrived"][came]))]
        own = state["arrived"][came]
        at = moments(own)
        if at is not own or (len(at) and at[-1] > end):  # of those that tie with the close none is later than it
            at = np.minimum(at, end)
            order = np.lexsort((flying[came], at))
            came, at = came[order], at[order]
        self._is["arrived"][flying[came]] = at  # also of those whose turn comes later
        came, at = came[:most], at[:most]
        self._flying[flying[came]] = False
        one = {name: state[name][came] for name in ("index", "version", "dispatched", "end", "computed", "up")}
        before = (np.minimum(one[name], at) for name in ("end", "computed"))
        columns = (flying[came], one["index"], one["version"], one["dispatched"], *before, at, one["up"])
        return tuple(map(Arrival, *(column.tolist() for column in columns)))

    def _dispatched(
        self, version: int, start: float, who: np.ndarray, index: np.ndarray, costs: Costs, mask_due: np.ndarray
    ) -> dict[str, np.ndarray]:
        """What is known of new flights at once."""
        new: dict[str, np.ndarray] = {name: np.zeros(len(who), np.int64) for name in _COUNTED}
        new["index"], new["version"] = index, np.full(len(who), version)
        new["batch"] = np.full(len(who), self._batch + 1)
        new["down"], new["up"], new["compute"] = costs.down_bytes[who], costs.up_bytes[who], costs.compute_s[who]
        new["mask"] = np.where(mask_due, costs.mask_bytes[who], 0)
        new["dispatched"] = np.full(len(who), start)
        new["down_rate"] = self._down_speed[who] * self._draw_down.factors(who, index)
        new["up_rate"] = self._up_speed[who] * self._draw_up.factors(who, index)
        new["ready"] = np.where(new["mask"] > 0, start + new["mask"] / new["down_rate"], start)
        return new

    def _shared_streams(
        self, version: int, start: float, who: np.ndarray, new: dict[str, np.ndarray], costs: Costs
    ) -> list[Shared]:
        """The batch's streams of values that are for more than one client."""
        if self._transport == "unicast":
            return []
        groups = costs.group[who] if self._transport == "distinct" else np.zeros(len(who), np.int64)
        out = []
        for group in np.unique(groups[new["down"] > 0]).tolist():
            mine = np.flatnonzero((groups == group) & (new["down"] > 0))
            prefixes, place = np.unique(new["down"][mine], return_inverse=True)
            fastest = np.zeros(len(prefixes))
            np.maximum.at(fastest, place, new["down_rate"][mine])
            rates = np.maximum.accumulate(fastest[::-1])[::-1].tolist()  # of those that are not done yet
            times = times_of(0.0, start, prefixes.tolist(), rates)
            out.append(Shared(group, version, start, prefixes.tolist(), times, rates, who[mine].tolist()))
        return out

    def _finish(self, who: np.ndarray, new: dict[str, np.ndarray], shared: list[Shared]) -> None:
        """The rest of the new flights' times, as `Receiver.resolve` and `Transfers` have them."""
        start, down, rate = new["dispatched"], new["down"], new["down_rate"]
        sent, peak = start.copy(), np.full(len(who), np.inf)
        if self._transport == "unicast":
            sent, peak = np.where(down > 0, start + down / rate, start), rate
        place = {client: k for k, client in enumerate(who.tolist())} if shared else {}
        for stream in shared:
            mine = np.array([place[client] for client in stream.clients])
            sent[mine] = np.array(stream.times)[np.searchsorted(stream.prefixes, down[mine])]
            peak[mine] = stream.rates[0]
        keeps_up = (new["mask"] == 0) & ((rate >= peak) | (down == 0))
        later = np.maximum(sent, np.maximum(new["ready"], start) + down / rate)
        new["sent"] = sent
        new["end"] = np.where(keeps_up, sent, later)
        self._upload(new)

    @staticmethod
    def _upload(new: dict[str, np.ndarray]) -> None:
        """What follows from the end of the download."""
        new["computed"] = new["end"] + new["compute"]
        new["arrived"] = np.where(new["up"] > 0, new["computed"] + new["up"] / new["up_rate"], new["computed"])

    def _within(
        self, start: float, end: float, state: dict[str, np.ndarray], shared: list[Shared], server: tuple[float, float]
    ) -> bool:
        """Whether all that moves in the window together is below the server's rates at any time."""
        begun, rate = state["dispatched"], state["down_rate"]
        # a shared stream has its highest rate to its end, as if it slowed down for nobody
        sending = [np.array([[stream.begin, stream.times[-1], stream.rates[0]] for stream in shared]).reshape(-1, 3)]
        sending.append(np.stack([begun, state["ready"], rate], axis=1)[state["mask"] > 0])
        if self._transport == "unicast":
            sending.append(np.stack([begun, state["sent"], rate], axis=1)[state["down"] > 0])
        receiving = np.stack([state["computed"], state["arrived"], state["up_rate"]], axis=1)[state["up"] > 0]
        for moving, there in zip((np.concatenate(sending), receiving), server, strict=True):
            moving = moving[(moving[:, 0] <= until(end)) & (moving[:, 1] > start)]
            if self._wanted(moving) > _MARGIN * there:
                return False
        return True

    def _wanted(self, moving: np.ndarray) -> float:
        """The most that streams `[n, (begin, end, rate)]` want together at any time; without contention, one alone."""
        if not len(moving):
            return 0.0
        if not self._network.contention:
            return float(moving[:, 2].max())
        times = np.concatenate([moving[:, 1], moving[:, 0]])  # where one ends as another begins, it ends first
        change = np.concatenate([-moving[:, 2], moving[:, 2]])
        return float(np.cumsum(change[np.argsort(times, kind="stable")]).max())

    def _passed(self, start: float, end: float, state: dict[str, np.ndarray]) -> int:
        """Events in the window, as the engine of events would have them."""
        times = [state["computed"], state["arrived"][state["up"] > 0]]
        masks = state["ready"][state["mask"] > 0]
        times += [masks, masks, np.array([time for stream in self._streams for time in stream.times])]
        if self._transport == "unicast":
            times.append(state["sent"])
        return sum(int(np.count_nonzero((t > until(start)) & (t <= until(end)))) for t in times)

    def _count(self, end: float, flying: np.ndarray, state: dict[str, np.ndarray]) -> tuple[int, int, int]:
        """Whole bytes since the last window: sent by the server, received by clients, received by the server."""

        def fresh(name: str, total: np.ndarray) -> int:
            total = np.maximum(total, state[name])
            moved = int((total - state[name]).sum())
            self._is[name][flying] = total
            return moved

        def floor(values: np.ndarray) -> np.ndarray:
            return np.floor(values).astype(np.int64)

        start, down, mask, rate = state["dispatched"], state["down"], state["mask"], state["down_rate"]
        since, last = end - start, until(end)
        masked = np.where(state["ready"] <= last, mask, floor(np.minimum(rate * since, mask)))
        sent = fresh("mask_counted", masked)
        if self._transport == "unicast":
            available = np.where(state["sent"] <= last, down.astype(float), np.minimum(rate * since, down))
            sent += fresh("sent_counted", np.where(state["sent"] <= last, down, floor(available)))
        else:
            available = down.astype(float)
            place = np.full(len(self._flying), -1)
            place[flying] = np.arange(len(flying))
            for stream in self._streams:
                total = int(stream.sent_at(end))
                sent, stream.counted = sent + total - stream.counted, total
                mine = place[np.array(stream.clients)]
                mine = mine[mine >= 0]
                mine = mine[(state["version"][mine] == stream.version) & (state["sent"][mine] > last)]
                available[mine] = np.minimum(down[mine], stream.sent_at(end))
        ready = np.maximum(state["ready"], start)
        values = np.maximum(0, floor(np.minimum((end - ready) * rate, available)))
        values = np.where(state["ready"] >= end, 0, values)
        values = np.where(state["end"] <= last, down, values)
        own_mask = np.where(start >= end, 0, np.maximum(0, floor(np.minimum(since * rate, mask))))
        own_mask = np.where(state["ready"] <= last, mask, own_mask)
        received = fresh("got_counted", values + own_mask)
        uploaded = floor(np.minimum(state["up_rate"] * np.maximum(end - state["computed"], 0), state["up"]))
        up = fresh("up_counted", np.where(state["arrived"] <= last, state["up"], uploaded))
        return sent, received, up

    def adopt(self, transfers: Transfers, now_s: float) -> bool:
        """Takes over from the events, on a new object, between windows; False where a stream waits, or has waited."""
        sending, receiving = transfers.links
        if not (sending.calm() and receiving.calm()):
            return False
        for stream in (*sending.active, *receiving.active):
            if stream.corners != [(stream.begin_s, 0.0)] or stream.rate != stream.own_rate:
                return False
        uploads = {stream.groups[0].receivers[0].client: stream for stream in receiving.active}
        flights = list(transfers.flights.values())
        for flight in flights:
            sent, end = flight.values.sent_s, flight.values.end_s
            there = end is not None and end <= until(now_s)
            if sent is not None and not there and flight.values.earliest_s != flight.dispatched_s:
                return False  # it takes from a buffer that was filled while the stream waited
        self._streams = [
            shared_from(stream, transfers.flights)
            for stream in sending.active
            if stream.key[1] == VALUES and self._transport != "unicast"
        ]
        who = np.array([flight.client for flight in flights], np.int64)
        rows = [self._row(flight, uploads.get(flight.client)) for flight in flights]
        new = {name: np.array([row[name] for row in rows], self._is[name].dtype) for name in self._is if name in _KNOWN}
        new["ready"] = np.where(new["mask"] > 0, new["dispatched"] + new["mask"] / new["down_rate"], new["dispatched"])
        # what is over already may have had to wait
        put_over(new["ready"], [flight.values.ready_s for flight in flights])
        self._finish(who, new, self._streams)
        put_over(new["sent"], [flight.values.sent_s for flight in flights])
        new["end"] = np.maximum(new["end"], new["sent"])
        put_over(new["end"], [flight.values.end_s for flight in flights])
        self._upload(new)
        put_over(new["arrived"], [flight.landed_s for flight in flights])
        for name, values in new.items():
            self._is[name][who] = values
        self._flying[who] = True
        self._batch, self.events = transfers.batch, transfers.events
        return True

    def _row(self, flight: Flight, upload: Stream | None) -> dict[str, float]:
        """What a flight says of itself, by the names of `_KNOWN`."""
        mask = 0 if flight.mask is None else flight.mask.prefix
        own = flight.stream if self._transport == "unicast" else None
        last = flight.stream or flight.mask_stream
        return {
            "index": flight.index,
            "version": flight.version,
            "batch": 0 if last is None else last.key[0],
            "down": flight.values.prefix,
            "mask": mask,
            "up": flight.up_bytes,
            "sent_counted": flight.values.prefix if own is None else own.counted,
            "mask_counted": mask if flight.mask_stream is None else flight.mask_stream.counted,
            "got_counted": flight.counted,
            "up_counted": upload.counted if upload is not None else 0 if flight.landed_s is None else flight.up_bytes,
            "dispatched": flight.dispatched_s,
            "compute": flight.compute_s,
            "down_rate": flight.values.rate,
            "up_rate": self._up_speed[flight.client] * self._draw_up.factor(flight.client, flight.index),
        }

    def to_transfers(self, now_s: float) -> Transfers:
        """The same flights as objects of the engine of events, between windows at `now_s`."""
        out = Transfers(self._network, self._transport, self._seed)
        rows = {
            client: {name: values[client].item() for name, values in self._is.items()}
            for client in self.in_flight.tolist()
        }
        out.adopt(self._batch, now_s, *objects_of(rows, self._streams, self._transport, now_s))
        out.events = self.events
        return out

    def to_state(self) -> dict[str, Any]:
        """Everything, as JSON can hold it (floats keep every bit)."""
        flying = self.in_flight
        return {
            "clients": flying.tolist(),
            "values": {name: values[flying].tolist() for name, values in self._is.items()},
            "streams": [dataclasses.asdict(stream) for stream in self._streams],
            "batch": self._batch,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `to_state`, on a new object."""
        clients = np.array(state["clients"], np.int64)
        self._flying[clients] = True
        for name, values in state["values"].items():
            self._is[name][clients] = values
        self._streams = [Shared(**stream) for stream in state["streams"]]
        self._batch = state["batch"]

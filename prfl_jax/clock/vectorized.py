"""The clock's windows while no client has to wait for the server, computed as arrays over all clients at once.

Where clients are dispatched at the window's start alone, and what all streams together want is below the server's
rates, a stream always has its own rate, so every time is known at the dispatch. The same formulas as in `stream.py`
then give the same numbers to the bit, as arrays over thousands of clients. `VectorizedClock.run` says whether a window
was such a one; if not, `to_transfers` hands over to the events, until `adopt` finds that no stream waits any more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from prfl_jax.clock.close_rules import CloseCondition
from prfl_jax.clock.draws import CLIENT_DOWN, CLIENT_UP, LogNormals
from prfl_jax.clock.flight import VALUES
from prfl_jax.clock.ties import earliest, moments, until
from prfl_jax.clock.transfers import Transfers
from prfl_jax.clock.transports import Transport
from prfl_jax.clock.types import Arrival, Costs, Network
from prfl_jax.clock.vectorized_bytes import ServerLoad, moved_bytes
from prfl_jax.clock.vectorized_state import (
    Columns,
    SharedStream,
    columns_of,
    overwrite,
    shared_from,
    times_of,
    to_objects,
)

_MB = 1e6

# By client: what is in flight. Times in s, rates in bytes/s; `ready` is when the mask is there, `sent` when all values
# have been sent, `end` when they are received.
_FLOATS = ("dispatched", "down_rate", "up_rate", "compute", "ready", "sent", "end", "computed", "arrived")
_COUNTED = ("sent_counted", "mask_counted", "got_counted", "up_counted")
_INTS = ("index", "version", "batch", "down", "mask", "up", *_COUNTED)


class Batch(NamedTuple):
    """What is dispatched at a window's start.

    `clients` `[n]` ids, ascending, none of them in flight; `index` `[n]`, how often each was dispatched before;
    `mask_due` `[n]`, whether each is sent its mask; `costs` of all clients.
    """

    clients: np.ndarray
    index: np.ndarray  # type: ignore[assignment]  # hides tuple.index
    mask_due: np.ndarray
    costs: Costs


@dataclasses.dataclass(frozen=True)
class VectorizedWindow:
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

    def __init__(self, network: Network, transport: Transport, seed: int) -> None:
        self._network, self._transport, self._seed = network, transport, seed
        self._draw_down = LogNormals(seed, CLIENT_DOWN, network.client_sigma)
        self._draw_up = LogNormals(seed, CLIENT_UP, network.client_sigma)
        self._down_speed = _MB * np.asarray(network.client_down, np.float64)
        self._up_speed = _MB * np.asarray(network.client_up, np.float64)
        clients = network.num_clients
        self._flying = np.zeros(clients, bool)
        self._columns: Columns = {name: np.zeros(clients) for name in _FLOATS}
        self._columns |= {name: np.zeros(clients, np.int64) for name in _INTS}
        self._streams: list[SharedStream] = []
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
        batch: Batch,
        server: tuple[float, float],
        condition: Callable[[np.ndarray, float], CloseCondition | None],
        no_more: bool,
    ) -> VectorizedWindow | None:
        """Dispatches at `start` and runs to the window's close; None, with nothing changed, where that cannot be.

        It cannot be where a client would wait for the server, where the window waits for more arrivals than can come,
        and where its close is not known at its opening.

        Args:
          version: of the model that is sent.
          start: simulated s.
          batch: the dispatches.
          server: its rates in this window, sending and receiving, bytes/s.
          condition: of (clients in flight, bytes to send): when the window closes.
          no_more: whether it has no more arrivals than it needs.
        """
        who = batch.clients
        new = self._dispatched(version, start, batch)
        shared = self._shared_streams(version, start, batch, new)
        self._finish(who, new, shared)
        before = self.in_flight
        flying = np.concatenate([before, who])
        state = {name: np.concatenate([values[before], new[name]]) for name, values in self._columns.items()}
        to_send = int(new["mask"].sum()) + sum(stream.prefixes[-1] for stream in shared)
        if not self._transport.shares:
            to_send += int(new["down"].sum())
        close = condition(flying, float(to_send))
        if close is None or close.need > len(flying):
            return None
        limit, need = close
        end = max(limit, earliest(np.sort(state["arrived"]), need - 1)) if need else limit
        load = ServerLoad(self._network.contention, server, not self._transport.shares)
        if not load.fits(start, end, state, [*self._streams, *shared]):
            return None
        # from here on things change
        self._batch += 1
        self._streams += shared
        for name, values in new.items():
            self._columns[name][who] = values
        self._flying[who] = True
        self.events += self._passed(start, end, state)
        own = not self._transport.shares
        counted, totals = moved_bytes(end, flying, state, self._streams, own, len(self._flying))
        for name, total in totals.items():
            self._columns[name][flying] = total
        self._streams = [stream for stream in self._streams if stream.times[-1] > until(end)]
        return VectorizedWindow(end, self._arrivals(end, need if no_more else None, flying, state), counted)

    def _arrivals(self, end: float, most: int | None, flying: np.ndarray, state: Columns) -> tuple[Arrival, ...]:
        """Takes the window's arrivals out of those `flying`, in order, `most` of them at most."""
        came = np.flatnonzero(state["arrived"] <= until(end))
        came = came[np.lexsort((flying[came], state["arrived"][came]))]
        own = state["arrived"][came]
        at = moments(own)
        if at is not own or (len(at) and at[-1] > end):  # of those that tie with the close none is later than it
            at = np.minimum(at, end)
            order = np.lexsort((flying[came], at))
            came, at = came[order], at[order]
        self._columns["arrived"][flying[came]] = at  # also of those whose turn comes later
        came, at = came[:most], at[:most]
        self._flying[flying[came]] = False
        one = {name: state[name][came] for name in ("index", "version", "dispatched", "end", "computed", "up")}
        before = (np.minimum(one[name], at) for name in ("end", "computed"))
        columns = (flying[came], one["index"], one["version"], one["dispatched"], *before, at, one["up"])
        return tuple(map(Arrival, *(column.tolist() for column in columns)))

    def _dispatched(self, version: int, start: float, batch: Batch) -> Columns:
        """What is known of new flights at once."""
        who, index, mask_due, costs = batch
        new: Columns = {name: np.zeros(len(who), np.int64) for name in _COUNTED}
        new["index"], new["version"] = index, np.full(len(who), version)
        new["batch"] = np.full(len(who), self._batch + 1)
        new["down"], new["up"], new["compute"] = costs.down_bytes[who], costs.up_bytes[who], costs.compute_s[who]
        new["mask"] = np.where(mask_due, costs.mask_bytes[who], 0)
        new["dispatched"] = np.full(len(who), start)
        new["down_rate"] = self._down_speed[who] * self._draw_down.factors(who, index)
        new["up_rate"] = self._up_speed[who] * self._draw_up.factors(who, index)
        new["ready"] = np.where(new["mask"] > 0, start + new["mask"] / new["down_rate"], start)
        return new

    def _shared_streams(self, version: int, start: float, batch: Batch, new: Columns) -> list[SharedStream]:
        """The batch's streams of values that clients may take from together."""
        if not self._transport.shares:
            return []
        who, groups = batch.clients, batch.costs.group[batch.clients]
        out = []
        for group in np.unique(groups[new["down"] > 0]).tolist():
            mine = np.flatnonzero((groups == group) & (new["down"] > 0))
            prefixes, place = np.unique(new["down"][mine], return_inverse=True)
            fastest = np.zeros(len(prefixes))
            np.maximum.at(fastest, place, new["down_rate"][mine])
            rates = np.maximum.accumulate(fastest[::-1])[::-1].tolist()  # of those that are not done yet
            times = times_of(0.0, start, prefixes.tolist(), rates)
            out.append(SharedStream(group, version, start, prefixes.tolist(), times, rates, who[mine].tolist()))
        return out

    def _finish(self, who: np.ndarray, new: Columns, shared: list[SharedStream]) -> None:
        """The rest of the new flights' times, as `Receiver.resolve` and `Transfers` have them."""
        start, down, rate = new["dispatched"], new["down"], new["down_rate"]
        sent, peak = start.copy(), np.full(len(who), np.inf)
        if not self._transport.shares:
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
    def _upload(new: Columns) -> None:
        """What follows from the end of the download."""
        new["computed"] = new["end"] + new["compute"]
        new["arrived"] = np.where(new["up"] > 0, new["computed"] + new["up"] / new["up_rate"], new["computed"])

    def _passed(self, start: float, end: float, state: Columns) -> int:
        """Events in the window, as the engine of events would have them."""
        times = [state["computed"], state["arrived"][state["up"] > 0]]
        masks = state["ready"][state["mask"] > 0]
        times += [masks, masks, np.array([time for stream in self._streams for time in stream.times])]
        if not self._transport.shares:
            times.append(state["sent"])
        return sum(int(np.count_nonzero((t > until(start)) & (t <= until(end)))) for t in times)

    def adopt(self, transfers: Transfers, now_s: float) -> bool:
        """Takes over from the events, on a new object, between windows; False where a stream waits, or has waited."""
        sending, receiving = transfers.links
        if not (sending.at_own_rates() and receiving.at_own_rates()):
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
            if stream.key[1] == VALUES and self._transport.shares
        ]
        who = np.array([flight.client for flight in flights], np.int64)
        new = columns_of([(flight, uploads.get(flight.client)) for flight in flights], not self._transport.shares)
        up_factors = [self._draw_up.factor(flight.client, flight.index) for flight in flights]
        new["up_rate"] = self._up_speed[who] * np.array(up_factors, np.float64)
        new["ready"] = np.where(new["mask"] > 0, new["dispatched"] + new["mask"] / new["down_rate"], new["dispatched"])
        # what is over already may have had to wait
        overwrite(new["ready"], [flight.values.ready_s for flight in flights])
        self._finish(who, new, self._streams)
        overwrite(new["sent"], [flight.values.sent_s for flight in flights])
        new["end"] = np.maximum(new["end"], new["sent"])
        overwrite(new["end"], [flight.values.end_s for flight in flights])
        self._upload(new)
        overwrite(new["arrived"], [flight.landed_s for flight in flights])
        for name, values in new.items():
            self._columns[name][who] = values
        self._flying[who] = True
        self._batch, self.events = transfers.batch, transfers.events
        return True

    def to_transfers(self, now_s: float) -> Transfers:
        """The same flights as objects of the engine of events, between windows at `now_s`."""
        out = Transfers(self._network, self._transport, self._seed)
        rows = {
            client: {name: values[client].item() for name, values in self._columns.items()}
            for client in self.in_flight.tolist()
        }
        out.adopt(self._batch, now_s, *to_objects(rows, self._streams, self._transport, now_s))
        out.events = self.events
        return out

    def to_state(self) -> dict[str, Any]:
        """Everything, as JSON can hold it (floats keep every bit)."""
        flying = self.in_flight
        return {
            "clients": flying.tolist(),
            "values": {name: values[flying].tolist() for name, values in self._columns.items()},
            "streams": [dataclasses.asdict(stream) for stream in self._streams],
            "batch": self._batch,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `to_state`, on a new object."""
        clients = np.array(state["clients"], np.int64)
        self._flying[clients] = True
        for name, values in state["values"].items():
            self._columns[name][clients] = values
        self._streams = [SharedStream(**stream) for stream in state["streams"]]
        self._batch = state["batch"]

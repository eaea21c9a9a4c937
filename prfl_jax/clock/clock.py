"""`Clock`: simulates windows one after another, event by event, over the network of `transfers.py`."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from prfl_jax.clock.close_rules import CloseCondition, Opening
from prfl_jax.clock.draws import SERVER_DOWN, SERVER_UP, LogNormals, draw_idle
from prfl_jax.clock.flight import Flight
from prfl_jax.clock.ties import until
from prfl_jax.clock.transfers import Transfers
from prfl_jax.clock.transports import Transport, find_transport
from prfl_jax.clock.types import Arrival, Costs, Dispatch, Failure, Network, Window
from prfl_jax.clock.vectorized import Batch, VectorizedClock
from prfl_jax.clock.window_rule import WindowRule
from prfl_jax.system.errors import UserError

_MB = 1e6
_MANY = 64  # clients from which windows in which nobody waits for the server are computed as arrays
_PATIENCE = 4  # windows by events before arrays are tried again; both give the same bits, but for near ties (BUILD.md)
MOST_DISPATCHES = 200_000  # on arrival, in one window, which is kept whole; or a hundred of each client


class Clock:
    """Simulated time of all clients, window by window; nothing in it depends on what is learned.

    All clients (or the first cohort) are dispatched at time 0. Each `next_window` first dispatches to the clients that
    arrived in the window before, or to as many drawn ones (so costs may be changed in between), then runs to its close.

    An arrival exactly at a close belongs to that window (Eq. 1), where a moment is exact up to `ties.TOLERANCE`.

    Args:
      network: speeds, MB/s.
      rule: when windows close (`close_rules.py`) and clients are dispatched (`dispatch_rules.py`).
      transport: which streams a batch of dispatches makes: a name of `transport.name`, or the object.
      seed: root seed; the k-th transfer of client i draws its factor from (seed, direction, i, k).
      costs: bytes and seconds of each client's dispatches, [M].

    Raises:
      UserError: an unknown transport, or a rule that would never close a window.
      ValueError: costs of another number of clients, or a close rule that takes a `FaultyClock`.
    """

    cuts_off = False  # whether a round may end without an arrival

    def __init__(self, network: Network, rule: WindowRule, transport: str | Transport, seed: int, costs: Costs) -> None:
        if rule.close_rule.cuts_off and not self.cuts_off:
            raise ValueError(f"window.close={rule.close} cuts clients off, which takes a FaultyClock")
        clients = network.num_clients
        rule.check_clients(clients)
        self.network, self.rule, self._seed = network, rule, seed
        self._transport = find_transport(transport)
        self._transfers = Transfers(network, self._transport, seed)
        self._try_again = 0  # windows after which the vectorized clock is tried again
        self._may_vectorize = clients >= _MANY and rule.may_vectorize
        # in the place of `_transfers`, as long as no client waits for the server
        self._vectorized = VectorizedClock(network, self._transport, seed) if self._may_vectorize else None
        self._server_up = LogNormals(seed, SERVER_UP, network.server_sigma)
        self._server_down = LogNormals(seed, SERVER_DOWN, network.server_sigma)
        self._time_s, self._windows = 0.0, 0
        self._index = [0] * clients  # dispatches of each client so far
        self._drawn = 0  # cohorts and parts of cohorts so far
        self._waiting: list[int] = [] if rule.cohort else list(range(clients))  # for the next start, by id
        self._due = rule.cohort  # how many are drawn then
        self.set_costs(costs)

    @property
    def time_s(self) -> float:
        """End of the last window, s."""
        return self._time_s

    @property
    def windows(self) -> int:
        """Windows so far; the number of the last one."""
        return self._windows

    @property
    def in_flight(self) -> tuple[int, ...]:
        """Clients with a dispatch that has not arrived, by id."""
        return tuple(sorted(self._flying))

    @property
    def events(self) -> int:
        """Events that this object handled: ends of transfers and of computing, and outdated ones."""
        return self._transfers.events if self._vectorized is None else self._vectorized.events

    @property
    def _flying(self) -> Collection[int]:
        return self._transfers.flights if self._vectorized is None else set(self._vectorized.in_flight.tolist())

    @property
    def costs(self) -> Costs:
        """What the dispatches from now on cost."""
        return self._costs

    def set_costs(self, costs: Costs) -> None:
        """Costs of the dispatches from now on: a new generation of masks, so each client is due its mask again."""
        clients = self.network.num_clients
        if len(costs.group) != clients:
            raise ValueError(f"costs for {len(costs.group)} clients, the network has {clients}")
        self._costs = costs
        self._sent = sent = self._transport.apply(costs)
        self._down: list[int] = sent.down_bytes.tolist()
        self._mask: list[int] = sent.mask_bytes.tolist()
        self._up: list[int] = sent.up_bytes.tolist()
        self._compute: list[float] = sent.compute_s.tolist()
        self._streams: list[int] = sent.group.tolist()
        self._mask_due = [True] * clients

    def next_window(self) -> Window:
        """Runs the next window and returns what happened in it."""
        number, start = self._windows + 1, self._time_s
        server_up, server_down = self._server_rates(number)
        clients = self._waiting or self._draw(self._due)
        if self._may_vectorize:
            window = self._next_vectorized(clients, number, start, (server_up, server_down))
            if window is not None:
                return window
        self._transfers.begin_window(server_up, server_down)
        dispatches: list[Dispatch] = []
        to_send = self._dispatch(clients, start, False, dispatches)
        opened = self.rule.open(Opening(number, start, start, self._transfers.flights, to_send / server_up))

        arrivals: list[Arrival] = []
        most, on_arrival = self.rule.most_at_once, self.rule.dispatch_rule.on_arrival
        now = start
        here = self._transfers.settle(start, most, opened.closes_s(now))
        while True:
            if here:  # the moment of all that arrived at this instant
                arrivals += here
                now = max(now, here[0].arrived_s)
                opened.observe(here, (), now)
            close_s = opened.closes_s(now)
            if here and on_arrival and close_s > until(now):
                check_progress(here)
                again = self._draw(len(here)) if self.rule.cohort else [arrival.client for arrival in here]
                self._dispatch(again, now, True, dispatches)
                here = self._transfers.settle(now, most, close_s)
                continue
            if opened.enough and most is not None:
                break
            upcoming = self._transfers.peek()
            if opened.enough and upcoming > until(close_s):
                break
            if upcoming == math.inf:
                raise self.rule.never_closes(number)
            now = max(now, min(upcoming, close_s))
            here = self._transfers.settle(now, most, close_s)
        end = max(now, opened.limit_s)

        return self._closed(end, dispatches, arrivals, self._transfers.count(end))

    def _server_rates(self, number: int) -> tuple[float, float]:
        """Bytes/s in a window, sending and receiving."""
        up = _MB * self.network.server_up * self._server_up.factor(0, number)
        return up, _MB * self.network.server_down * self._server_down.factor(0, number)

    def _closed(
        self, end: float, dispatches: Sequence[Dispatch], arrivals: Sequence[Arrival], counted: tuple[int, int, int]
    ) -> Window:
        """The window that ends now; notes the clients that are dispatched at the start of the next."""
        flying = self._flying
        if self.rule.cohort:
            self._due = self.rule.cohort - len(flying)
        else:  # with dispatch on arrival some have their next model already
            self._waiting = sorted({arrival.client for arrival in arrivals if arrival.client not in flying})
        waiting_s = self.rule.dispatch_rule.waiting_s(arrivals, end)
        start, self._time_s = self._time_s, end
        self._windows += 1
        return Window(self._windows, start, end, tuple(dispatches), tuple(arrivals), *counted, waiting_s)

    def _next_vectorized(
        self, clients: Sequence[int], number: int, start: float, server: tuple[float, float]
    ) -> Window | None:
        """The next window as arrays; None, and all that is in flight handed to the events, where that cannot be."""
        if self._vectorized is None and self._windows >= self._try_again:
            vectorized = VectorizedClock(self.network, self._transport, self._seed)
            if vectorized.adopt(self._transfers, start):
                self._vectorized = vectorized
                self._transfers = Transfers(self.network, self._transport, self._seed)
        if self._vectorized is None:
            return None
        window = self._vectorized_window(self._vectorized, clients, number, start, server)
        if window is None:
            self._transfers, self._vectorized = self._vectorized.to_transfers(start), None
            self._try_again = number + _PATIENCE
        return window

    def _vectorized_window(
        self,
        vectorized: VectorizedClock,
        clients: Sequence[int],
        number: int,
        start: float,
        server: tuple[float, float],
    ) -> Window | None:
        """The next window, if no client has to wait for the server in it and its close is known at its opening."""
        index = np.array([self._index[client] for client in clients], np.int64)
        due = np.array([self._mask_due[client] for client in clients], bool)

        def condition(in_flight: np.ndarray, to_send: float) -> CloseCondition | None:
            # the flying clients as an array: a rule that needs to know them one by one has no condition
            return self.rule.condition(Opening(number, start, start, in_flight, to_send / server[0]))

        batch = Batch(np.asarray(clients, np.int64), index, due, self._sent)
        no_more = self.rule.arrivals is not None
        ran = vectorized.run(self._windows, start, batch, server, condition, no_more)
        if ran is None:
            return None
        dispatches = []
        for client, masked in zip(clients, due.tolist(), strict=True):
            sent = self._down[client] + (self._mask[client] if masked else 0)
            dispatches.append(Dispatch(client, self._index[client], self._windows, start, False, sent))
            self._index[client] += 1
            self._mask_due[client] = False
        return self._closed(ran.end, dispatches, ran.arrivals, ran.counted)

    def _draw(self, count: int) -> list[int]:
        """The next `count` clients of a cohort, by id, out of those that are not in flight."""
        if not count:
            return []
        self._drawn += 1
        return draw_idle(self._seed, self._drawn, count, self.network.num_clients, self._flying)

    def _dispatch(self, clients: Sequence[int], now_s: float, on_arrival: bool, log: list[Dispatch]) -> int:
        """Sends the current model to clients (by id); returns the bytes the server has to send."""
        version = self._windows
        if on_arrival and len(log) > max(MOST_DISPATCHES, 100 * self.network.num_clients):
            raise too_many_dispatches(self.rule, version + 1, len(log), now_s)
        flights = []
        for client in clients:
            index = self._index[client]
            self._index[client] = index + 1
            mask = self._mask[client] if self._mask_due[client] else 0
            self._mask_due[client] = False
            dispatch = Dispatch(client, index, version, now_s, on_arrival, self._down[client] + mask)
            flights.append(Flight.begin(dispatch, mask, self._compute[client], self._up[client]))
            log.append(dispatch)
        return self._transfers.dispatch(flights, self._streams, now_s)

    def to_state(self) -> dict[str, Any]:
        """Everything that changes, as JSON can hold it (floats keep every bit); between windows."""
        return {
            "time_s": self._time_s,
            "windows": self._windows,
            "index": list(self._index),
            "mask_due": list(self._mask_due),
            "waiting": list(self._waiting),
            "due": self._due,
            "drawn": self._drawn,
            "costs": self._costs.to_state(),
            "quiet": None if self._vectorized is None else self._vectorized.to_state(),
            "transfers": self._transfers.to_state(),
        }

    @classmethod
    def from_state(
        cls, network: Network, rule: WindowRule, transport: str | Transport, seed: int, state: dict[str, Any]
    ) -> Clock:
        """A clock that continues exactly where `to_state` was taken, with the same first four arguments."""
        clock = cls(network, rule, transport, seed, Costs.from_state(state["costs"]))
        clock._load(state)
        return clock

    def _load(self, state: dict[str, Any]) -> None:
        self._time_s, self._windows = state["time_s"], state["windows"]
        self._index, self._mask_due = list(state["index"]), list(state["mask_due"])
        self._waiting, self._due, self._drawn = list(state["waiting"]), state["due"], state["drawn"]
        if state["quiet"] is None:
            self._vectorized = None
        elif self._vectorized is not None:
            self._vectorized.load_state(state["quiet"])
        self._transfers.load_state(state["transfers"])


def too_many_dispatches(rule: WindowRule, window: int, dispatches: int, now_s: float) -> UserError:
    """The error for a window that dispatches without end (to be raised)."""
    key = rule.close_rule.length_key
    return UserError(
        f"config.window.{key}={getattr(rule, key)}: window {window} has dispatched {dispatches:,} "
        f"times by {now_s:g} simulated s, and has not closed; allowed is less, or window.dispatch='window_end'"
    )


def check_progress(ended: Sequence[Arrival | Failure]) -> None:
    """Checks that rounds after which clients are dispatched at once took some time.

    Raises:
      UserError: one took 0 s, so a window would hold rounds without end.
    """
    for one in ended:
        if one.ended_s <= one.dispatched_s:
            raise UserError(
                f"window.dispatch: on_arrival, but a round of client {one.client} takes 0 s, so it never ends; "
                "use window_end"
            )

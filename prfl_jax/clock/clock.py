"""The clock: windows, one after another, over the fluid network of `transfers.py`."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from prfl_jax.clock.draws import SERVER_DOWN, SERVER_UP, LogNormals, draw_idle
from prfl_jax.clock.flight import Flight
from prfl_jax.clock.stream import Receiver
from prfl_jax.clock.ties import until
from prfl_jax.clock.transfers import Transfers
from prfl_jax.clock.types import TRANSPORTS, Arrival, Costs, Dispatch, Failure, Network, Window, WindowRule
from prfl_jax.clock.vectorized import VectorizedClock
from prfl_jax.system.errors import UserError

_MB = 1e6
_MANY = 64  # clients from which windows in which nobody waits for the server are computed as arrays
_PATIENCE = 4  # windows by events before arrays are tried again; both give the same bits, but for near ties (BUILD.md)
MOST_DISPATCHES = 200_000  # on arrival, in one window, which is kept whole; or a hundred of each client
RELEASE_EXTRA_S = 0.1  # facts: the published code adds this to the time the server needs for sending


class Clock:
    """Simulated time of all clients, window by window; nothing in it depends on what is learned.

    Everybody (or the first cohort) is dispatched at time 0. Each `next_window` first dispatches to those who arrived in
    the window before, or to as many that are drawn (so costs may be changed in between), then runs to its close.

    Close rules (`WindowRule.close`); an arrival exactly at a close belongs to that window (Eq. 1), where a moment is
    exact up to `ties.TOLERANCE`:
      fixed         T_n = T_{n-1} + dt; a window may stay without arrivals. With
                    `first_waits_for_all` the first ends with the last client's first arrival.
      all           every client that is in flight at the start has arrived.
      k_arrivals, each_arrival   the k-th (first) arrival, and no more than these: arrivals at one moment are taken one
                    after the other, by client id, and those that are left close windows of length 0.
      release       the first two windows wait for all; then max(release_min_s, bytes dispatched at
                    the start / the server's sending rate in this window + 0.1 s), stretched to the
                    arrival of a second client (a first, if only one is in flight).
      deadline      see `FaultyClock`, which also has everything that goes wrong.

    Args:
      network: speeds, MB/s.
      rule: when windows close and clients are dispatched.
      transport: delta | distinct | one_copy | unicast (see `transfers.py`).
      seed: root seed; the k-th transfer of client i draws its factor from (seed, direction, i, k).
      costs: bytes and seconds of each client's dispatches, [M].

    Raises:
      UserError: an unknown transport, or a rule that would never close a window.
      ValueError: costs of another number of clients.
    """

    cuts_off = False  # whether a round may end without an arrival

    def __init__(self, network: Network, rule: WindowRule, transport: str, seed: int, costs: Costs) -> None:
        if rule.close == "deadline" and not self.cuts_off:
            raise ValueError("a deadline cuts clients off, which takes a FaultyClock")
        if transport not in TRANSPORTS:
            raise UserError(f"transport.name: {transport!r} is not one of {', '.join(TRANSPORTS)}")
        clients = network.num_clients
        if rule.cohort > clients:
            raise UserError(f"window.cohort: {rule.cohort} of {clients} clients cannot be drawn")
        most = rule.cohort or clients
        if rule.close == "k_arrivals" and rule.dispatch == "window_end" and rule.k > most:
            raise UserError(
                f"window.k: {rule.k} arrivals never come from {most} clients that wait for the window's end; "
                f"use at most {most}, or window.dispatch on_arrival"
            )
        self.network = network
        self.rule = rule
        self._seed = seed
        self._transfers: Transfers = Transfers(network, transport, seed)
        self._transport = transport
        self._try_again = 0
        self._many = clients >= _MANY and rule.dispatch == "window_end"
        self._quiet = self._new_quiet() if self._many else None  # instead of `_transfers`, as long as it will do
        self._server_up = LogNormals(seed, SERVER_UP, network.server_sigma)
        self._server_down = LogNormals(seed, SERVER_DOWN, network.server_sigma)
        self._time_s = 0.0
        self._windows = 0
        self._index = [0] * clients  # dispatches of each client so far
        self._mask_due = [True] * clients
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
        """Events that this object handled: ends of transfers and of computing, and some that came too late to count."""
        return self._transfers.events if self._quiet is None else self._quiet.events

    @property
    def _flying(self) -> Collection[int]:
        return self._transfers.flights if self._quiet is None else set(self._quiet.in_flight.tolist())

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
        self._down: list[int] = costs.down_bytes.tolist()
        self._mask: list[int] = costs.mask_bytes.tolist()
        self._up: list[int] = costs.up_bytes.tolist()
        self._compute: list[float] = costs.compute_s.tolist()
        self._group: list[int] = costs.group.tolist()
        self._mask_due = [True] * clients

    def next_window(self) -> Window:
        """Runs the next window and returns what happened in it."""
        number, start = self._windows + 1, self._time_s
        server_up, server_down = self._server_rates(number)
        clients = self._waiting or self._draw(self._due)
        if self._many and self._quiet is None and self._windows >= self._try_again:
            quiet = self._new_quiet()
            if quiet.adopt(self._transfers, start):
                self._quiet, self._transfers = quiet, Transfers(self.network, self._transport, self._seed)
        if self._quiet is not None:
            window = self._quiet_window(self._quiet, clients, number, start, (server_up, server_down))
            if window is not None:
                return window
            self._transfers, self._quiet = self._quiet.to_transfers(start), None
            self._try_again = number + _PATIENCE
        self._transfers.begin_window(server_up, server_down)
        dispatches: list[Dispatch] = []
        to_send = self._dispatch(clients, start, False, dispatches)
        limit, need = self._close_rule(number, start, len(self._transfers.flights), to_send / server_up)

        arrivals: list[Arrival] = []
        arrived: set[int] = set()
        most = 1 if self.rule.counts else None
        now, enough = start, need == 0
        here = self._transfers.settle(start, most, limit if enough else math.inf)
        while True:
            arrivals += here
            arrived.update(arrival.client for arrival in here)
            if here:  # the moment that all that came at this instant have
                now = max(now, here[0].arrived_s)
            enough = (len(arrivals) if self.rule.counts else len(arrived)) >= need
            close = max(now, limit) if enough else math.inf
            if here and self.rule.dispatch == "on_arrival" and close > until(now):
                self._check_progress(here)
                again = self._draw(len(here)) if self.rule.cohort else [arrival.client for arrival in here]
                self._dispatch(again, now, True, dispatches)
                here = self._transfers.settle(now, most, close)
                continue
            if enough and self.rule.counts:
                break
            upcoming = self._transfers.peek()
            if enough and upcoming > until(close):
                break
            if upcoming == math.inf:
                raise RuntimeError(f"window {number} cannot close: nothing is in flight")
            now = max(now, min(upcoming, close))
            here = self._transfers.settle(now, most, close)
        end = max(now, limit)

        return self._closed(end, dispatches, arrivals, self._transfers.count(end))

    def _server_rates(self, number: int) -> tuple[float, float]:
        """Bytes/s in a window, sending and receiving."""
        up = _MB * self.network.server_up * self._server_up.factor(0, number)
        return up, _MB * self.network.server_down * self._server_down.factor(0, number)

    def _closed(
        self, end: float, dispatches: Sequence[Dispatch], arrivals: Sequence[Arrival], counted: tuple[int, int, int]
    ) -> Window:
        """The window that ends now; notes who is dispatched at the start of the next."""
        flying = self._flying
        if self.rule.cohort:
            self._due = self.rule.cohort - len(flying)
        else:  # with dispatch on arrival some have their next model already
            self._waiting = sorted({arrival.client for arrival in arrivals if arrival.client not in flying})
        waits = self.rule.dispatch == "window_end"
        waiting_s = tuple(end - arrival.arrived_s if waits else 0.0 for arrival in arrivals)
        start, self._time_s = self._time_s, end
        self._windows += 1
        return Window(self._windows, start, end, tuple(dispatches), tuple(arrivals), *counted, waiting_s)

    def _new_quiet(self) -> VectorizedClock:
        return VectorizedClock(self.network, self._transport, self._seed)

    def _quiet_window(
        self, quiet: VectorizedClock, clients: Sequence[int], number: int, start: float, server: tuple[float, float]
    ) -> Window | None:
        """The next window, if nobody has to wait for the server in it."""
        index = np.array([self._index[client] for client in clients], np.int64)
        due = np.array([self._mask_due[client] for client in clients], bool)

        def close(flying: int, to_send: float) -> tuple[float, int, bool]:
            return *self._close_rule(number, start, flying, to_send / server[0]), self.rule.counts

        ran = quiet.run(self._windows, start, clients, index, self._costs, due, server, close)
        if ran is None:
            return None
        dispatches = []
        for client, masked in zip(clients, due.tolist(), strict=True):
            sent = self._down[client] + (self._mask[client] if masked else 0)
            dispatches.append(Dispatch(client, self._index[client], self._windows, start, False, sent))
            self._index[client] += 1
            self._mask_due[client] = False
        return self._closed(ran.end, dispatches, ran.arrivals, ran.counted)

    def _close_rule(self, number: int, start: float, flying: int, sending_s: float) -> tuple[float, int]:
        """The window closes at the first time >= limit at which `need` clients have arrived, or so many arrivals."""
        rule = self.rule
        waits_for_all = rule.close == "all" or (rule.close == "release" and number <= 2)
        if waits_for_all or (rule.close == "fixed" and rule.first_waits_for_all and number == 1):
            return start, flying
        if rule.close == "fixed":
            return start + rule.dt_s, 0
        if rule.close == "release":
            return start + max(rule.release_min_s, sending_s + RELEASE_EXTRA_S), min(2, flying)
        return start, rule.k if rule.close == "k_arrivals" else 1

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
            key = {"fixed": "dt_s", "k_arrivals": "k"}.get(self.rule.close, "release_min_s")
            raise UserError(
                f"config.window.{key}={getattr(self.rule, key)}: window {version + 1} has dispatched {len(log):,} "
                f"times by {now_s:g} simulated s, and goes on; allowed is less, or window.dispatch='window_end'"
            )
        flights = []
        for client in clients:
            index = self._index[client]
            self._index[client] = index + 1
            mask = self._mask[client] if self._mask_due[client] else 0
            self._mask_due[client] = False
            flights.append(
                Flight(
                    client,
                    index,
                    version,
                    now_s,
                    self._compute[client],
                    self._up[client],
                    values=Receiver(client, self._down[client], 0.0, None if mask else now_s),
                    mask=Receiver(client, mask, 0.0, now_s) if mask else None,
                )
            )
            log.append(Dispatch(client, index, version, now_s, on_arrival, self._down[client] + mask))
        return self._transfers.dispatch(flights, self._group, now_s)

    def _check_progress(self, ended: Sequence[Arrival | Failure]) -> None:
        for one in ended:
            if one.ended_s <= one.dispatched_s:
                raise UserError(
                    f"window.dispatch: on_arrival, but a round of client {one.client} takes 0 s, so it never ends; "
                    "use window_end"
                )

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
            "quiet": None if self._quiet is None else self._quiet.to_state(),
            "transfers": self._transfers.to_state(),
        }

    @classmethod
    def from_state(cls, network: Network, rule: WindowRule, transport: str, seed: int, state: dict[str, Any]) -> Clock:
        """A clock that goes on exactly where `to_state` was taken, with the same first four arguments."""
        clock = cls(network, rule, transport, seed, Costs.from_state(state["costs"]))
        clock._load(state)
        return clock

    def _load(self, state: dict[str, Any]) -> None:
        self._time_s = state["time_s"]
        self._windows = state["windows"]
        self._index = list(state["index"])
        self._mask_due = list(state["mask_due"])
        self._waiting = list(state["waiting"])
        self._due, self._drawn = state["due"], state["drawn"]
        if state["quiet"] is None:
            self._quiet = None
        elif self._quiet is not None:
            self._quiet.load_state(state["quiet"])
        self._transfers.load_state(state["transfers"])

"""The clock with faults: rounds that fail, clients that join and leave, windows that cut clients off."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from prfl_jax.clock.clock import Clock, check_progress
from prfl_jax.clock.close_rules import Opening
from prfl_jax.clock.draws import draw_idle
from prfl_jax.clock.faults import LATE, Faults
from prfl_jax.clock.faulty_transfers import FaultyTransfers
from prfl_jax.clock.ties import until
from prfl_jax.clock.transports import Transport
from prfl_jax.clock.types import Arrival, Costs, Dispatch, Failure, Network, Repeat, Window
from prfl_jax.clock.window_rule import WindowRule
from prfl_jax.system.errors import NobodyLeft


class FaultyClock(Clock):
    """As `Clock`, with faults; without any the same windows, to the bit, but slower.

    A client whose round failed is idle. With dispatch at the window's end it is dispatched at the next start if it is
    there then; with dispatch on arrival at once, or when it comes back; a cohort is drawn among the clients that are
    there. A window that has to wait for an arrival while all clients are away opens when the first comes: its first
    dispatches are made then.

    Args:
      faults: what can go wrong; the others as for `Clock`.

    Raises:
      UserError: as `Clock`.
      NobodyLeft: from `next_window`, a window waits for a client and no client will ever be there; every later call
        raises it again, also of a clock that is restored.
    """

    cuts_off = True

    def __init__(
        self,
        network: Network,
        rule: WindowRule,
        transport: str | Transport,
        seed: int,
        costs: Costs,
        faults: Faults | None = None,
    ) -> None:
        super().__init__(network, rule, transport, seed, costs)
        self._faults = faults or Faults()
        self._may_vectorize, self._vectorized = False, None
        self._faulty = self._transfers = FaultyTransfers(network, self._transport, seed, self._faults)
        self._faulty.plan_changes(0.0)
        self._idle = set(range(network.num_clients))
        self._over: str | None = None  # why no window comes any more: the next stays half run, for good

    def next_window(self) -> Window:
        """As `Clock.next_window`."""
        if self._over is not None:
            raise NobodyLeft(self._over)
        number, start = self._windows + 1, self._time_s
        server = self._server_rates(number)
        self._transfers.begin_window(*server)
        dispatches: list[Dispatch] = []
        now, to_send = self._open(number, start, dispatches)
        opened = self.rule.open(Opening(number, start, now, self._transfers.flights, to_send / server[0]))

        arrivals: list[Arrival] = []
        failures: list[Failure] = []
        repeats: list[Repeat] = []
        most, on_arrival = self.rule.most_at_once, self.rule.dispatch_rule.on_arrival
        close_s = opened.closes_s(now)
        here = self._transfers.settle(now, most, close_s)
        while True:
            failed, repeated, back = self._collect(here)
            arrivals += here
            failures += failed
            repeats += repeated
            for listed in (here, failed):  # all that ended at this instant have one moment
                now = max(now, min(listed[-1].ended_s, close_s)) if listed else now
            if here or failed:
                opened.observe(here, failed, now)
            close_s = opened.closes_s(now)
            if on_arrival and close_s > until(now):
                ended: list[Arrival | Failure] = [*here, *failed]
                check_progress(ended)
                again = self._ready(now, [*(one.client for one in ended), *back])
                if again:
                    self._dispatch(again, now, True, dispatches)
                    here = self._transfers.settle(now, most, close_s)
                    continue
            if opened.enough and (most is not None or self._transfers.peek() > until(close_s)):
                break
            now, here = self._next_event(number, now, most, close_s)
        end = max(now, opened.limit_s)
        self._faulty.cut(opened.late, LATE, end)
        failed, repeated, _ = self._collect(())  # a copy, too, may end at the very close, the link being free now
        failures += failed
        repeats += repeated

        counted = self._transfers.count(end)
        waiting_s = self.rule.dispatch_rule.waiting_s(arrivals, end)
        self._time_s, self._windows = end, number
        # what ties with the close is not later than it
        failures = [one._replace(ended_s=min(one.ended_s, end)) for one in failures]
        repeats = [one._replace(ended_s=min(one.ended_s, end)) for one in repeats]
        ended_so = tuple(failures), tuple(repeats)
        return Window(number, start, end, tuple(dispatches), tuple(arrivals), *counted, waiting_s, *ended_so)

    def _open(self, number: int, start: float, log: list[Dispatch]) -> tuple[float, int]:
        """The window's first dispatches: their time, and the bytes to be sent for them."""
        now, to_send = start, self._dispatch(self._ready(start), start, False, log)
        waits = not self.rule.close_rule.may_be_empty or self.rule.waits_for_all(number)
        while waits and not self._transfers.flights:
            now, _ = self._next_event(number, now)
            to_send += self._dispatch(self._ready(now), now, False, log)
        return now, to_send

    def _next_event(
        self, number: int, now: float, most: int | None = None, close_s: float = math.inf
    ) -> tuple[float, list[Arrival]]:
        """To the next event, or to the close that it ties with: the time, and the arrivals."""
        upcoming = self._transfers.peek()
        if upcoming == math.inf:
            if self.rule.is_plugin and self._faults.presence is None:  # nobody ever leaves, so it is the rule's mistake
                raise self.rule.never_closes(number)
            self._over = (
                f"config.faults.leave_s, config.faults.availability: from {now:g} simulated s on nobody is there, and "
                f"window {number} waits for somebody; allowed: somebody who stays, fewer rounds, a horizon_s, or "
                "window.close='fixed'"
            )
            raise NobodyLeft(self._over)
        now = max(now, min(upcoming, close_s))
        return now, self._transfers.settle(now, most, close_s)

    def _collect(self, arrivals: Sequence[Arrival]) -> tuple[list[Failure], list[Repeat], list[int]]:
        """Failures, repeats and clients that have come since the last call; notes who is idle now."""
        endings = self._faulty.take()
        for listed in (arrivals, endings.failures):
            self._idle.update(one.client for one in listed)
        for client in endings.unmasked:
            self._mask_due[client] = True
        return endings.failures, endings.repeats, endings.back

    def _ready(self, now: float, among: Iterable[int] | None = None) -> list[int]:
        """Clients to dispatch now, by id: all that are idle and there (of `among`, if given), or a cohort's rest."""
        if not self.rule.cohort:
            who = self._idle if among is None else self._idle.intersection(among)
            return sorted(client for client in who if self._faults.there(client, until(now)))
        want = self.rule.cohort - len(self._flying)
        if self._faults.presence is None:
            return self._draw(want)
        there = {client for client in self._idle if self._faults.there(client, until(now))}
        count = min(want, len(there))
        if not count:
            return []
        self._drawn += 1
        clients = self.network.num_clients
        return draw_idle(self._seed, self._drawn, count, clients, set(range(clients)) - there)

    def _dispatch(self, clients: Sequence[int], now_s: float, on_arrival: bool, log: list[Dispatch]) -> int:
        self._idle.difference_update(clients)
        return super()._dispatch(clients, now_s, on_arrival, log)

    def to_state(self) -> dict[str, Any]:
        """As `Clock.to_state`; also where `next_window` has raised `NobodyLeft`."""
        return {**super().to_state(), "over": self._over}

    @classmethod
    def from_state(
        cls,
        network: Network,
        rule: WindowRule,
        transport: str | Transport,
        seed: int,
        state: dict[str, Any],
        faults: Faults | None = None,
    ) -> FaultyClock:
        """As `Clock.from_state`."""
        clock = cls(network, rule, transport, seed, Costs.from_state(state["costs"]), faults)
        clock._load(state)
        return clock

    def _load(self, state: dict[str, Any]) -> None:
        super()._load(state)
        self._faulty.plan_changes(self._time_s)
        self._idle.difference_update(self._transfers.flights)
        self._over = state.get("over")

"""The clock where things go wrong: rounds that fail, clients that come and leave, windows with a deadline."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from prfl_jax.clock.clock import RELEASE_EXTRA_S, Clock
from prfl_jax.clock.draws import draw_idle
from prfl_jax.clock.faults import LATE, Faults
from prfl_jax.clock.faulty_transfers import FaultyTransfers
from prfl_jax.clock.ties import until
from prfl_jax.clock.types import Arrival, Costs, Dispatch, Failure, Network, Repeat, Window, WindowRule
from prfl_jax.system.errors import NobodyLeft


class Close:
    """When a window closes: at the first time >= `limit` at which it has `enough`.

    Those in flight at the opening are awaited until their round has ended, in whatever way. A rule that waits for all
    waits for these; any other that asks for arrivals is content when nobody can arrive any more.

    Args:
      number: of the window.
      start_s, opened_s: its start, and its first dispatches.
      awaited: clients in flight then.
      sending_s: the time the server needs for what it dispatched.
    """

    def __init__(
        self, rule: WindowRule, number: int, start_s: float, opened_s: float, awaited: Iterable[int], sending_s: float
    ) -> None:
        self.awaited = set(awaited)
        self.limit = opened_s
        self._rule, self._opened_s = rule, opened_s
        self._all, self._flying = waits_for_all(rule, number), len(self.awaited)
        self._arrivals, self._arrived = 0, set[int]()
        self._need = min(2, len(self.awaited)) if rule.close == "release" else 1
        if rule.close == "k_arrivals":
            self._need = rule.k
        self._set = False  # whether the deadline is known
        if not self._all and rule.close == "fixed":
            self.limit = start_s + rule.dt_s
        elif not self._all and rule.close == "release":
            self.limit = opened_s + max(rule.release_min_s, sending_s + RELEASE_EXTRA_S)

    def observe(self, arrivals: Sequence[Arrival], failures: Sequence[Failure], now_s: float) -> None:
        """Takes what ended at this instant."""
        self._arrivals += len(arrivals)
        self._arrived.update(arrival.client for arrival in arrivals)
        for listed in (arrivals, failures):
            self.awaited.difference_update(one.client for one in listed)
        if self._rule.close == "deadline" and not self._all:
            if not self.awaited:
                self.limit = self._opened_s
            elif not self._set and self._arrivals >= self._share():
                self._set = True
                self.limit = self._opened_s + self._rule.deadline_factor * (now_s - self._opened_s)

    def _share(self) -> int:
        """Arrivals that set the deadline: a share of who has arrived or still can; failures put off no close."""
        able = self._arrivals + len(self.awaited)
        # a share that is a whole number to the last bit is that number
        return max(1, math.ceil(self._rule.deadline_share * able - 1e-9))

    def after(self, now_s: float) -> float:
        """When the window closes if nothing ends any more, not before now; infinite where it waits for something."""
        return max(now_s, self.limit) if self.enough else math.inf

    @property
    def most(self) -> int | None:
        """How many arrivals are taken at a time."""
        return 1 if self._rule.counts else None

    @property
    def enough(self) -> bool:
        close = self._rule.close
        if self._all:  # of a cohort as many as there were, whoever they are
            return not self.awaited or (self._rule.cohort > 0 and len(self._arrived) >= self._flying)
        if close == "fixed":
            return True
        if close == "deadline":
            return self._set or not self.awaited
        if close == "release":
            return len(self._arrived) >= self._need or not self.awaited
        # dispatched on arrival, others may come
        return self._arrivals >= self._need or (self._rule.dispatch == "window_end" and not self.awaited)

    @property
    def late(self) -> list[int]:
        """Who is cut off at the close, by id."""
        return sorted(self.awaited) if self._rule.close == "deadline" else []


def waits_for_all(rule: WindowRule, number: int) -> bool:
    """Whether a window waits until everybody has arrived, or cannot."""
    first = number == 1 and rule.first_waits_for_all and rule.close in ("fixed", "deadline")
    return first or rule.close == "all" or (rule.close == "release" and number <= 2)


class FaultyClock(Clock):
    """As `Clock`, with faults; without any the same windows, to the bit, but slower.

    Whoever failed is idle. With dispatch at the window's end it is dispatched at the next start if it is there then;
    with dispatch on arrival at once, or when it comes back; a cohort is drawn among those that are there. A window that
    has to wait for somebody while all are away opens when the first comes: there are its first dispatches.

    `deadline` (FedMP, section V-A): d s after the window's dispatches `deadline_share` of them have arrived, those
    not counted whose round has failed by then; it closes after `deadline_factor` d s, or when nobody is left if that is
    sooner, and whoever is in flight then is cut off.

    Args:
      faults: what can go wrong; the others as for `Clock`.

    Raises:
      UserError: as `Clock`.
      NobodyLeft: from `next_window`, a window waits for somebody and nobody will ever be there; so says every later
        call, also of a clock that is restored.
    """

    cuts_off = True

    def __init__(
        self,
        network: Network,
        rule: WindowRule,
        transport: str,
        seed: int,
        costs: Costs,
        faults: Faults | None = None,
    ) -> None:
        super().__init__(network, rule, transport, seed, costs)
        self._faults = faults or Faults()
        self._many, self._quiet = False, None
        self._faulty = self._transfers = FaultyTransfers(network, transport, seed, self._faults)
        self._faulty.wake(0.0)
        self._idle = set(range(network.num_clients))
        self._over: str | None = None  # why no window comes any more: the next stays half run, and is never run again

    def next_window(self) -> Window:
        """As `Clock.next_window`."""
        if self._over is not None:
            raise NobodyLeft(self._over)
        number, start = self._windows + 1, self._time_s
        server = self._server_rates(number)
        self._transfers.begin_window(*server)
        dispatches: list[Dispatch] = []
        now, to_send = self._open(number, start, dispatches)
        close = Close(self.rule, number, start, now, self._transfers.flights, to_send / server[0])

        arrivals: list[Arrival] = []
        failures: list[Failure] = []
        repeats: list[Repeat] = []
        close_s = close.after(now)
        here = self._transfers.settle(now, close.most, close_s)
        while True:
            failed, repeated, back = self._take(here)
            arrivals += here
            failures += failed
            repeats += repeated
            for listed in (here, failed):  # all that ended at this instant have one moment
                now = max(now, min(listed[-1].ended_s, close_s)) if listed else now
            close.observe(here, failed, now)
            close_s = close.after(now)
            if self.rule.dispatch == "on_arrival" and close_s > until(now):
                ended: list[Arrival | Failure] = [*here, *failed]
                self._check_progress(ended)
                again = self._ready(now, [*(one.client for one in ended), *back])
                if again:
                    self._dispatch(again, now, True, dispatches)
                    here = self._transfers.settle(now, close.most, close_s)
                    continue
            if close.enough and (self.rule.counts or self._transfers.peek() > until(close_s)):
                break
            now, here = self._go_on(number, now, close.most, close_s)
        end = max(now, close.limit)
        self._faulty.cut(close.late, LATE, end)
        failed, repeated, _ = self._take(())  # a copy, too, may end at the very close, the link being free now
        failures += failed
        repeats += repeated

        counted = self._transfers.count(end)
        waits = self.rule.dispatch == "window_end"
        waiting_s = tuple(end - arrival.arrived_s if waits else 0.0 for arrival in arrivals)
        self._time_s, self._windows = end, number
        # what ties with the close is not later than it
        failures = [one._replace(ended_s=min(one.ended_s, end)) for one in failures]
        repeats = [one._replace(ended_s=min(one.ended_s, end)) for one in repeats]
        ended_so = tuple(failures), tuple(repeats)
        return Window(number, start, end, tuple(dispatches), tuple(arrivals), *counted, waiting_s, *ended_so)

    def _open(self, number: int, start: float, log: list[Dispatch]) -> tuple[float, int]:
        """The window's first dispatches: their time, and the bytes to be sent for them."""
        now, to_send = start, self._dispatch(self._ready(start), start, False, log)
        waits = self.rule.close != "fixed" or waits_for_all(self.rule, number)
        while waits and not self._transfers.flights:
            now, _ = self._go_on(number, now)
            to_send += self._dispatch(self._ready(now), now, False, log)
        return now, to_send

    def _go_on(
        self, number: int, now: float, most: int | None = None, close_s: float = math.inf
    ) -> tuple[float, list[Arrival]]:
        """To the next event, or to the close that it ties with: the time, and the arrivals."""
        upcoming = self._transfers.peek()
        if upcoming == math.inf:
            self._over = (
                f"config.faults.leave_s, config.faults.availability: from {now:g} simulated s on nobody is there, and "
                f"window {number} waits for somebody; allowed: somebody who stays, fewer rounds, a horizon_s, or "
                "window.close='fixed'"
            )
            raise NobodyLeft(self._over)
        now = max(now, min(upcoming, close_s))
        return now, self._transfers.settle(now, most, close_s)

    def _take(self, arrivals: Sequence[Arrival]) -> tuple[list[Failure], list[Repeat], list[int]]:
        """Failures, repeats and who has come since the last call, with `arrivals` entered into the books."""
        happened = self._faulty.take()
        for listed in (arrivals, happened.failures):
            self._idle.update(one.client for one in listed)
        for client in happened.unmasked:
            self._mask_due[client] = True
        return happened.failures, happened.repeats, happened.back

    def _ready(self, now: float, among: Iterable[int] | None = None) -> list[int]:
        """Who is dispatched now, by id: all that are idle and there, of those `among` if given, or a cohort's rest."""
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
        transport: str,
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
        self._faulty.wake(self._time_s)
        self._idle.difference_update(self._transfers.flights)
        self._over = state.get("over")

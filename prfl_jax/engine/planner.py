"""Plans a chunk on the host: the clock's windows, densities and aggregation weights become a `Plan`.

Nothing here depends on what is learned: inside an interval densities are constant, so the clock may run ahead of the
device. Host values only; imports no JAX.
"""

from __future__ import annotations

import collections
import dataclasses
import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from prfl_jax.aggregate import AggregationWeights, CloseContext, Slot, find_aggregation, weights_of
from prfl_jax.aggregate.cycles import Cycles
from prfl_jax.aggregate.server_optimizers import for_weight_rule
from prfl_jax.clock import Arrival, Clock, Costs, Dispatch, Failure, Repeat, Window
from prfl_jax.clock.faults import LEFT
from prfl_jax.density import DensityPolicy
from prfl_jax.engine.plan import LocalRound, Plan, make_row
from prfl_jax.engine.round_densities import RoundDensities


@dataclasses.dataclass(frozen=True)
class PlannedWindow:
    """One window, ready for the device.

    Attributes:
      window: what happened in it, from the clock.
      rows: its rows of the plan; the last one closes the window.
      density_pct: density of each of its dispatches, whole percents.
      staleness: tau of each arrival, n - 1 - n'(i).
      weights: `[S]` weights of the slots at its close.
      pruned: clients whose arrivals have masks that they chose anew.
    """

    window: Window
    rows: tuple[Plan, ...]
    density_pct: tuple[int, ...]
    staleness: tuple[int, ...]
    weights: np.ndarray
    pruned: tuple[int, ...] = ()


class Slots:
    """The slot of the device's arrays that each client has, of S slots in all.

    Where everybody takes part a client's slot is its number. In a cohort it gets the lowest one that is free when it
    is dispatched, and gives it back when it arrives or fails.
    """

    def __init__(self, clients: int, cohort: int) -> None:
        self.number = cohort or clients
        self._cohort = cohort
        self._free = list(range(cohort))  # a heap
        self._of: dict[int, int] = {}

    def take(self, client: int) -> int:
        """The slot of a client that is dispatched now."""
        if not self._cohort:
            return client
        slot = self._of[client] = heapq.heappop(self._free)
        return slot

    def give(self, client: int) -> int:
        """The slot of a client whose round ends now."""
        if not self._cohort:
            return client
        slot = self._of.pop(client)
        heapq.heappush(self._free, slot)
        return slot

    def weights(self, by_client: np.ndarray, arrived: Mapping[int, int]) -> np.ndarray:
        """`[S]` weights of `[M]`; in a cohort only this window's arrivals have any, at their slots."""
        if not self._cohort:
            return by_client
        out = np.zeros(self.number)
        for client, slot in arrived.items():
            out[slot] = by_client[client]
        return out

    def to_state(self) -> list[list[int]]:
        return [[client, slot] for client, slot in sorted(self._of.items())]

    def from_state(self, state: list[list[int]]) -> None:
        self._of = {client: slot for client, slot in state}
        self._free = sorted(set(range(self._cohort)) - set(self._of.values()))


class Planner:
    """Plans windows one after another.

    Args:
      clock: from the config; this object drives it.
      policy: the density policy, which observes every arrival.
      aggregation: `config.aggregation`, with the numbers in force.
      local: `config.local`, for the learning rate; `dt_ref_s` is the reference window in s.
      p: `[M]` client weights p_i.
      ahead: where an arrival is not trained yet, all clients in flight are trained in its row.

    Attributes:
      densities: of the clients' rounds; where they count otherwise than from the dispatch on, to be replaced at once.
    """

    def __init__(
        self,
        clock: Clock,
        policy: DensityPolicy,
        aggregation: Any,
        local: Any,
        dt_ref_s: float,
        p: np.ndarray,
        ahead: bool = False,
    ) -> None:
        self.clock, self.policy = clock, policy
        self._aggregation, self._local, self._dt_ref_s, self._p = for_weight_rule(aggregation), local, dt_ref_s, p
        self._optimizer_lr = aggregation.server_lr
        self._choice = find_aggregation(aggregation.name)
        self._rule = clock.rule
        clients = len(p)
        self.densities = RoundDensities(clients)
        self._cycles = Cycles(clients)
        self._places = Slots(clients, clock.rule.cohort)
        self._upcoming: collections.deque[Window] = collections.deque()
        self._slots: list[Slot | None] = [None] * clients
        self._rounds = np.zeros(clients, np.int64)  # that each client has done
        self._round_s = np.zeros(clients)  # and their round times, summed
        self._in_flight: dict[int, LocalRound] = {}  # by slot
        self._ahead = ahead
        self._waiting: dict[int, LocalRound] = {}  # with `ahead`, those of them that are not trained yet
        self._sent_ahead: tuple[int, ...] = ()  # clients that the next window does not dispatch again

    def peek(self, k: int = 0) -> Window:
        """The k-th window that is not taken yet; runs the clock as far as needed."""
        while len(self._upcoming) <= k:
            self._upcoming.append(self.clock.next_window())
        return self._upcoming[k]

    def set_costs(self, costs: Costs) -> None:
        """A new generation of densities and masks; only where no window is planned ahead.

        Raises:
          RuntimeError: the clock has already dispatched beyond this point.
        """
        if self._upcoming:
            raise RuntimeError("densities can only change where the clock has not gone ahead")
        self.clock.set_costs(costs)

    def begin_at(self, time_s: float, copied: Callable[[dict[str, Any]], Clock]) -> None:
        """Lets window 1 begin at a simulated second; `copied` as for `send_ahead`. Before any window is planned."""
        self.clock = copied(self.clock.to_state() | {"time_s": time_s})

    def learning_rate(self, dispatched_s: float) -> float:
        """lr * decay ^ (simulated time / (dt_ref * decay_rounds)): the same clock for every method."""
        local = self._local
        return local.lr * local.lr_decay ** (dispatched_s / (self._dt_ref_s * local.lr_decay_rounds))

    def take(self) -> PlannedWindow:
        """Takes the next window: its rows, weights and bytes; passes its arrivals to the density policy."""
        window = self.peek()
        self._upcoming.popleft()
        density_pct = self.policy.density_pct
        closing = self._close(window)
        rows: list[Plan] = []
        arrivals: list[LocalRound] = []
        arrived: dict[int, int] = {}  # client -> slot
        arrived_pct: list[int] = []
        pruned: list[int] = []
        first = [d for d in window.dispatches if not d.on_arrival and d.client not in self._sent_ahead]
        self._sent_ahead = ()
        sent = self._send(first, density_pct)
        on_arrival = collections.deque(d for d in window.dispatches if d.on_arrival)
        # A row dispatches first and takes arrivals then, so a client that is dispatched in the middle of the
        # window opens another row; all of them get the model from before the close.
        again: list[Dispatch] = []
        for arrival in _endings(window):
            while on_arrival and on_arrival[0].time_s < arrival.ended_s:
                again.append(on_arrival.popleft())
            if isinstance(arrival, Failure):
                again = self._drop(arrival, again)
                continue
            if any(dispatch.client == arrival.client for dispatch in again):
                rows.append(self._row(sent, arrivals))
                sent, arrivals, again = self._send(again, density_pct), [], []
            slot = arrived[arrival.client] = self._places.give(arrival.client)
            here = self._in_flight.pop(slot)
            coefficient = closing.arrivals[len(arrived_pct)] if closing.arrivals else 0.0
            arrivals.append(here._replace(coefficient=coefficient))
            arrived_pct.append(here.density_pct)
            self.densities.arrive(here)
            if here.prunes:
                pruned.append(arrival.client)
        again += on_arrival
        if again:
            rows.append(self._row(sent, arrivals))
            sent, arrivals = self._send(again, density_pct), []
        self.policy.observe(window.arrivals, arrived_pct)
        by_slot = self._places.weights(closing.slots, arrived)
        closing = dataclasses.replace(closing, slots=by_slot, optimizer_lr=self._optimizer_lr)
        rows.append(self._row(sent, arrivals, closing))
        staleness = tuple(window.index - 1 - a.version for a in window.arrivals)
        dispatched = self.densities.of(window.dispatches)
        return PlannedWindow(window, tuple(rows), dispatched, staleness, closing.slots, tuple(pruned))

    def send_ahead(self, prunes: Callable[[int], bool], copied: Callable[[dict[str, Any]], Clock]) -> Plan | None:
        """Dispatches the next window's clients before the clock runs it, so that what they will upload can be measured.

        Who is dispatched does not depend on what they upload, so a copy of the clock tells.

        Args:
          prunes: whether a client chooses its masks anew in its next round.
          copied: from `Clock.to_state` to a clock.

        Returns:
          A row that dispatches and trains them; None, with nothing done, where none of them prunes, or where it was
          done or found out before: the clock has run the window then.
        """
        if self._sent_ahead or self._upcoming:
            return None
        window = copied(self.clock.to_state()).next_window()
        first = [d for d in window.dispatches if not d.on_arrival]
        if not any(prunes(dispatch.client) for dispatch in first):
            return None
        self._sent_ahead = tuple(dispatch.client for dispatch in first)
        sent = self._send(first, self.policy.density_pct, prunes)
        train = [self._waiting.pop(slot) for slot in sorted(self._waiting)]
        return make_row(self._places.number, sent, [], train=train)

    def _send(
        self,
        dispatches: Sequence[Dispatch],
        density_pct: np.ndarray,
        prunes: Callable[[int], bool] = lambda client: False,
    ) -> list[tuple[int, int]]:
        """(slot, density in percent) of each dispatch; notes its local round as in flight."""
        out = []
        for client, index, _, time_s, *_ in dispatches:
            slot, anew = self._places.take(client), prunes(client)
            percent = self.densities.send(client, int(density_pct[client]), anew)
            rate, costs = self.learning_rate(time_s), self.clock.costs
            own = {
                "steps": int(costs.steps[client]),
                "values_up": int(costs.values_up[client]),
                "prunes": anew,
            }
            local_round = LocalRound(slot, client, index, rate, density_pct=percent, **own)
            self._in_flight[slot] = local_round
            if self._ahead:
                self._waiting[slot] = local_round
            out.append((slot, percent))
        return out

    def _drop(self, failure: Failure, again: list[Dispatch]) -> list[Dispatch]:
        """Removes a round that has failed; returns the dispatches of `again` that still have to be sent."""
        left = [dispatch for dispatch in again if dispatch.client != failure.client]
        if len(left) == len(again):
            slot = self._places.give(failure.client)
            del self._in_flight[slot]
            self._waiting.pop(slot, None)
        return left

    def _row(
        self, sent: Sequence[tuple[int, int]], arrivals: Sequence[LocalRound], closing: AggregationWeights | None = None
    ) -> Plan:
        """A row of the plan; it trains all rounds that wait for training if one of its arrivals does."""
        train: list[LocalRound] = []
        if any(arrival.slot in self._waiting for arrival in arrivals):
            train = [self._waiting[slot] for slot in sorted(self._waiting)]
            self._waiting.clear()
        return make_row(self._places.number, sent, arrivals, closing, train)

    def _close(self, window: Window) -> AggregationWeights:
        """Notes the window's arrivals; returns the weights of its aggregation."""
        for arrival in window.arrivals:
            self._rounds[arrival.client] += 1
            self._round_s[arrival.client] += arrival.round_s
            self._slots[arrival.client] = Slot(arrival.version, window.index)
        rule = self._rule
        waits = rule.close_rule.synchronous or rule.waits_for_all(window.index)
        cycle_s, step_s = None, None
        if not rule.close_rule.fixed_length and not waits:
            self._cycles.add(window)
            cycle_s, step_s = self._cycles.mean_s, self._cycles.step_s(self._taking_part(window))
        mean_s = np.where(self._rounds > 0, self._round_s / np.maximum(self._rounds, 1), np.nan)
        seen = CloseContext(
            window.index, window.arrivals, self._slots, self._p, mean_s, rule.dt_s,
            waits=waits, k=rule.arrivals, cycle_s=cycle_s, step_s=step_s,
        )  # fmt: skip
        return weights_of(self._choice, self._aggregation, seen)

    def _taking_part(self, window: Window) -> set[int]:
        """Clients that had a round in the window and have not left in it; called before its dispatches are noted."""
        there = {one.client for one in self._in_flight.values()}
        there.update(dispatch.client for dispatch in window.dispatches)
        left_s = {failure.client: failure.ended_s for failure in window.failures if failure.kind == LEFT}
        back = {d.client for d in window.dispatches if d.client in left_s and d.time_s >= left_s[d.client]}
        return there.difference(left_s.keys() - back)

    def slot_windows(self) -> list[int]:
        """`[M]` window in which each slot was filled last; 0 for an empty one."""
        return [0 if slot is None else slot.window for slot in self._slots]

    def to_state(self) -> dict[str, Any]:
        """Everything that changes, as JSON can hold it (floats keep every bit)."""
        return {
            "clock": self.clock.to_state(),
            "policy": self.policy.to_state(),
            "ahead": [_window_state(window) for window in self._upcoming],
            "slots": [None if s is None else [s.version, s.window] for s in self._slots],
            "places": self._places.to_state(),
            "trained": self._rounds.tolist(),
            "round_s": self._round_s.tolist(),
            "cycles": self._cycles.to_state(),
            "in_flight": [list(self._in_flight[slot]) for slot in sorted(self._in_flight)],
            "sent_ahead": list(self._sent_ahead),
            "densities": self.densities.to_state(),
        }

    def from_state(self, state: dict[str, Any], clock: Clock) -> Planner:
        """Takes over a saved state, with the clock made from `state["clock"]`; returns itself."""
        self.clock = clock
        self.policy.from_state(state["policy"])
        self._upcoming = collections.deque(_window_from(saved) for saved in state["ahead"])
        self._slots = [None if s is None else Slot(*s) for s in state["slots"]]
        self._places.from_state(state["places"])
        self._rounds = np.array(state["trained"], np.int64)
        self._round_s = np.array(state["round_s"], np.float64)
        self._cycles.from_state(state["cycles"])
        self._in_flight = {slot: LocalRound(slot, *rest) for slot, *rest in state["in_flight"]}
        self._sent_ahead = tuple(state["sent_ahead"])
        self.densities.from_state(state["densities"], self._in_flight.values())
        if self._ahead:  # results of training are not saved, only what they follow from
            self._waiting = dict(self._in_flight)
        return self


def _endings(window: Window) -> Sequence[Arrival | Failure]:
    """Arrivals and failures in order of time."""
    if not window.failures:
        return window.arrivals
    return sorted([*window.arrivals, *window.failures], key=lambda ending: ending.ended_s)


def _window_state(window: Window) -> dict[str, Any]:
    plain = ("index", "start_s", "end_s", "bytes_down", "bytes_client_down", "bytes_up")
    return {
        **{key: getattr(window, key) for key in plain},
        "dispatches": [list(d) for d in window.dispatches],
        "arrivals": [list(a) for a in window.arrivals],
        "waiting_s": window.waiting_s,
        "failures": [list(f) for f in window.failures],
        "repeats": [list(r) for r in window.repeats],
    }


def _window_from(saved: dict[str, Any]) -> Window:
    return Window(
        **{
            **saved,
            "dispatches": tuple(Dispatch(*d) for d in saved["dispatches"]),
            "arrivals": tuple(Arrival(*a) for a in saved["arrivals"]),
            "waiting_s": tuple(saved["waiting_s"]),
            "failures": tuple(Failure(*f) for f in saved.get("failures", ())),
            "repeats": tuple(Repeat(*r) for r in saved.get("repeats", ())),
        }
    )

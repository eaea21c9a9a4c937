"""Close rules (`window.close`): when a window of the server closes. Both clocks use these objects.

A rule answers in one of two ways. Where the close follows from a time and a number of arrivals that are known when the
window opens, it overrides `condition`; the window can be simulated event by event (`Clock`, `FaultyClock`) or as arrays
(`VectorizedClock`). Where the close depends on what happens in the window, it overrides `open`; the window is simulated
event by event.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from numbers import Real
from typing import NamedTuple

from prfl_jax.clock.dispatch_rules import find_dispatch_rule
from prfl_jax.clock.types import Arrival, Failure, WindowSettings
from prfl_jax.registry import Registry, one_line, wrong
from prfl_jax.system.errors import UserError

RELEASE_EXTRA_S = 0.1  # facts: the published code adds this to the time the server needs for sending


class Opening(NamedTuple):
    """A window whose first dispatches have been made.

    `number` is n, from 1; `start_s` is T_{n-1} and `opened_s` the time of the first dispatches (simulated s; later than
    `start_s` only where all clients were away). `in_flight` are the clients in flight now; `sending_s` is how long the
    server needs to send what it dispatched, at its rate in this window.
    """

    number: int
    start_s: float
    opened_s: float
    in_flight: Collection[int]
    sending_s: float


class CloseCondition(NamedTuple):
    """The window closes at the first time >= `limit_s` (simulated s) at which `need` clients have arrived.

    For a rule that counts arrivals (`CloseRule.arrivals`), `need` is a number of arrivals, whoever they are from.
    """

    limit_s: float
    need: int


class OpenWindow:
    """A window until it closes: at the first time >= `limit_s` at which `enough` is true.

    Args:
      opening: how it began.
      limit_s: simulated s.
      need: how many clients have to arrive; infinity: all that are in flight at the opening.
      counts: `need` is a number of arrivals instead.
      closes_without: also `enough` when nobody of those in flight at the opening can arrive any more.

    Attributes:
      awaited: clients in flight at the opening whose round has not ended since.
      arrivals: how many there were.
      arrived: the clients they were from.
    """

    def __init__(
        self, opening: Opening, limit_s: float, need: float, counts: bool = False, closes_without: bool = True
    ) -> None:
        self.limit_s = limit_s
        self.awaited = set(opening.in_flight)
        self.arrivals = 0
        self.arrived: set[int] = set()
        self._need, self._counts, self._closes_without = need, counts, closes_without
        self.enough = need <= 0 or (closes_without and not self.awaited)

    def observe(self, arrivals: Sequence[Arrival], failures: Sequence[Failure], now_s: float) -> None:
        """Takes the rounds that ended at this instant; may change `limit_s` and `enough`."""
        for arrival in arrivals:
            self.arrived.add(arrival.client)
            self.awaited.discard(arrival.client)
        self.arrivals += len(arrivals)
        for failure in failures:
            self.awaited.discard(failure.client)
        have = self.arrivals if self._counts else len(self.arrived)
        self.enough = have >= self._need or (self._closes_without and not self.awaited)

    def closes_s(self, now_s: float) -> float:
        """When the window closes if no more rounds end, not before now; infinity where it waits for a round."""
        return max(now_s, self.limit_s) if self.enough else math.inf

    @property
    def late(self) -> list[int]:
        """Clients that are cut off at the close, by id."""
        return []


class CloseRule:
    """When a window closes; a custom rule is an object of a subclass that overrides `condition` or `open`.

    Attributes:
      synchronous: its windows wait for (nearly) all clients in flight, so `window.dispatch=on_arrival` is refused.
      cuts_off: rounds in flight at a close may end there without an update; takes the clock with faults.
      may_be_empty: a window closes by the time alone, with or without arrivals.
      fixed_length: every window but perhaps the first lasts `window.dt_s`.
      first_may_wait: `window.first_waits_for_all` applies to it.
      length_key: the key of `config.window` that says how long a window is.
    """

    synchronous = False
    cuts_off = False
    may_be_empty = False
    fixed_length = False
    first_may_wait = False
    length_key = "close"

    @property
    def known_at_opening(self) -> bool:
        """Whether `condition` says all; not where a subclass overrides `open` alone."""
        definer = next(base for base in type(self).__mro__ if vars(base).keys() & {"condition", "open"})
        return definer is not CloseRule and "condition" in vars(definer)

    def check(self, settings: WindowSettings) -> None:
        """Raises `UserError` where the settings of this rule are not allowed."""

    def arrivals(self, settings: WindowSettings) -> int | None:
        """The number of arrivals with which every window closes, where it can have no more; else None."""
        return None

    def waits_for_all(self, number: int) -> bool:
        """Whether window `number` waits until every client in flight has arrived, or cannot."""
        return False

    def condition(self, settings: WindowSettings, opening: Opening) -> CloseCondition | None:
        """When the window closes, as far as it is known at its opening; None: it depends on what happens in it."""
        return None

    def open(self, settings: WindowSettings, opening: Opening) -> OpenWindow:
        """The window, to be simulated event by event."""
        limit_s, need = check_condition(self.condition(settings, opening), settings, opening)
        counts = self.arrivals(settings) is not None
        # With dispatch on arrival, clients that were not in flight at the opening may arrive.
        closes_without = not (counts and find_dispatch_rule(settings.dispatch).on_arrival)
        return OpenWindow(opening, limit_s, need, counts, closes_without)


def check_condition(found: object, settings: WindowSettings, opening: Opening) -> CloseCondition:
    """What `condition` of a rule returned, checked: a plugin may be wrong.

    Raises:
      UserError: no `CloseCondition`, a time that is not finite, or a negative number of clients.
    """
    good = isinstance(found, CloseCondition) and isinstance(found.limit_s, Real) and isinstance(found.need, Real)
    if not (good and -math.inf < found.limit_s < math.inf and found.need >= 0):  # type: ignore[attr-defined]
        raise UserError(
            f"config.window.close={settings.close!r}: in window {opening.number} condition gives {one_line(found)}; "
            "allowed is a CloseCondition of a finite limit_s and a need of at least 0"
        )
    assert isinstance(found, CloseCondition)
    if isinstance(found.need, int) or not math.isfinite(found.need):
        return found
    return CloseCondition(found.limit_s, math.ceil(found.need))  # a NumPy integer, or a float


class Fixed(CloseRule):
    """T_n = T_{n-1} + dt: a window may have no arrivals."""

    may_be_empty = fixed_length = first_may_wait = True
    length_key = "dt_s"

    def check(self, settings: WindowSettings) -> None:
        if not (settings.dt_s > 0 and math.isfinite(settings.dt_s)):
            raise UserError(f"window.dt_s: {settings.dt_s} s is not a positive finite number")

    def condition(self, settings: WindowSettings, opening: Opening) -> CloseCondition:
        return CloseCondition(opening.start_s + settings.dt_s, 0)


class All(CloseRule):
    """Every client that is in flight at the opening has arrived, or cannot arrive any more (FedMP, Eq. 6)."""

    synchronous = True

    def waits_for_all(self, number: int) -> bool:
        return True

    def condition(self, settings: WindowSettings, opening: Opening) -> CloseCondition:
        return CloseCondition(opening.opened_s, len(opening.in_flight))

    def open(self, settings: WindowSettings, opening: Opening) -> OpenWindow:
        # Of a cohort as many as were in flight, whichever clients; else every one of them.
        need = len(opening.in_flight) if settings.cohort else math.inf
        return OpenWindow(opening, opening.opened_s, need)


class KArrivals(CloseRule):
    """The k-th arrival, and no more than these.

    Arrivals at one moment are taken one after the other, by client id; those that are left close windows of length 0.
    """

    length_key = "k"

    def check(self, settings: WindowSettings) -> None:
        if settings.k < 1:
            raise UserError(f"window.k: {settings.k} is below 1")

    def arrivals(self, settings: WindowSettings) -> int:
        return settings.k

    def condition(self, settings: WindowSettings, opening: Opening) -> CloseCondition:
        return CloseCondition(opening.opened_s, self.arrivals(settings))


class EachArrival(KArrivals):
    """The first arrival: `k_arrivals` with k = 1, whatever `window.k` is."""

    length_key = "close"

    def check(self, settings: WindowSettings) -> None:
        pass

    def arrivals(self, settings: WindowSettings) -> int:
        return 1


class Release(CloseRule):
    """The rule of PR-FL's published code.

    The first two windows wait for all. Then a window lasts max(`release_min_s`, bytes dispatched at its start / the
    server's sending rate in it + 0.1 s), and until a second client arrives (the first, where only one is in flight).
    """

    length_key = "release_min_s"

    def check(self, settings: WindowSettings) -> None:
        if not (settings.release_min_s >= 0 and math.isfinite(settings.release_min_s)):
            raise UserError(f"window.release_min_s: {settings.release_min_s} s is not a finite number of at least 0")

    def waits_for_all(self, number: int) -> bool:
        return number <= 2

    def condition(self, settings: WindowSettings, opening: Opening) -> CloseCondition:
        limit_s = opening.opened_s + max(settings.release_min_s, opening.sending_s + RELEASE_EXTRA_S)
        return CloseCondition(limit_s, min(2, len(opening.in_flight)))


class Deadline(CloseRule):
    """FedMP, section V-A: d s after the opening, a share of the clients in flight has arrived.

    The window closes `deadline_factor` d s after its opening, or when no round is under way if that is sooner. Clients
    in flight then are cut off. Rounds that failed by then do not count in the share.
    """

    synchronous = cuts_off = first_may_wait = True

    def check(self, settings: WindowSettings) -> None:
        share, factor = settings.deadline_share, settings.deadline_factor
        if not 0 < share <= 1:
            raise UserError(f"window.deadline_share: {share} is not in (0, 1]")
        if not (factor >= 1 and math.isfinite(factor)):
            raise UserError(f"window.deadline_factor: {factor} is not a finite number of at least 1")

    def open(self, settings: WindowSettings, opening: Opening) -> OpenWindow:
        return _OpenDeadline(settings, opening)


class _OpenDeadline(OpenWindow):
    """A window of the rule `deadline`: `enough` once the deadline is set."""

    def __init__(self, settings: WindowSettings, opening: Opening) -> None:
        super().__init__(opening, opening.opened_s, math.inf)
        self._settings, self._opened_s, self._set = settings, opening.opened_s, False

    def observe(self, arrivals: Sequence[Arrival], failures: Sequence[Failure], now_s: float) -> None:
        super().observe(arrivals, failures, now_s)
        if not self.awaited:
            self.limit_s = self._opened_s
        elif not self._set and self.arrivals >= self._share():
            self._set = True
            self.limit_s = self._opened_s + self._settings.deadline_factor * (now_s - self._opened_s)
        self.enough = self._set or not self.awaited

    def _share(self) -> int:
        """Arrivals that set the deadline: a share of the clients that have arrived or still can, rounded up."""
        able = self.arrivals + len(self.awaited)
        # a share that is a whole number to the last bit is that number
        return max(1, math.ceil(self._settings.deadline_share * able - 1e-9))

    @property
    def late(self) -> list[int]:
        return sorted(self.awaited)


def _accept(name: str, found: object) -> CloseRule:
    """A plugin as a close rule."""
    key = "config.window.close"
    if not isinstance(found, CloseRule):
        raise wrong(key, name, found, "an object of a subclass of prfl_jax.clock.CloseRule")
    if type(found).condition is CloseRule.condition and type(found).open is CloseRule.open:
        raise UserError(f"{key}: {name!r} ({type(found).__name__}) must override condition or open")
    return found


WAIT_FOR_ALL = All()

# values of `window.close`
CLOSE_RULES: Registry[CloseRule] = Registry(
    "window.close",
    {
        "fixed": Fixed(),
        "all": WAIT_FOR_ALL,
        "k_arrivals": KArrivals(),
        "each_arrival": EachArrival(),
        "release": Release(),
        "deadline": Deadline(),
    },
    _accept,
)


def find_close_rule(name: str) -> CloseRule:
    """The close rule that `window.close` names: a built-in, or a plugin.

    Raises:
      UserError: there is no such rule, or the plugin cannot be loaded or is none.
    """
    return CLOSE_RULES.find(name)

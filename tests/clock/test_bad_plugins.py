"""Mistakes in custom close rules and transports: each is refused in one line that names the key and the plugin."""

import dataclasses
import inspect

import numpy as np
import pytest
import tiny
from clock_random import random_costs, random_network

from prfl_jax.clock import (
    Clock,
    CloseCondition,
    CloseRule,
    Faults,
    FaultyClock,
    OpenWindow,
    Transport,
    WindowRule,
    clock,
)
from prfl_jax.config.validate import validate
from prfl_jax.system.errors import UserError

HERE = "tests.clock.test_bad_plugins:"


class Condition(CloseRule):
    def __init__(self, gives):
        self.gives = gives

    def condition(self, settings, opening):
        return self.gives(opening)


class Opens(CloseRule):
    def __init__(self, gives):
        self.gives = gives

    def open(self, settings, opening):
        return self.gives(opening)


def opens(**overrides):
    """A rule whose windows of three clients have these members instead."""
    kind = type("Overriding", (OpenWindow,), overrides)
    return Opens(lambda opening: kind(opening, opening.opened_s, 3))


class NeverEnough(OpenWindow):
    def observe(self, arrivals, failures, now_s):
        super().observe(arrivals, failures, now_s)
        self.enough = False


class Checks(Condition):
    def check(self, settings):
        raise ValueError("bad")


class Counts(Condition):
    def arrivals(self, settings):
        return "3"


class Waits(Condition):
    def waits_for_all(self, number):
        return 1 / 0


class Sends(Transport):
    def __init__(self, streams=None, charge=None):
        self._streams, self._charge = streams, charge

    def streams(self, group):
        return super().streams(group) if self._streams is None else self._streams(group)

    def charge(self, costs):
        return costs if self._charge is None else self._charge(costs)


def changed(**changes):
    """A transport that charges other costs; each change is a function of the field."""
    return Sends(
        charge=lambda costs: dataclasses.replace(
            costs, **{key: new(getattr(costs, key)) for key, new in changes.items()}
        )
    )


def one(opening):
    return CloseCondition(opening.opened_s, 1)


NO_CONDITION = Condition(lambda opening: None)
TEXT_LIMIT = Condition(lambda opening: CloseCondition("5", 1))
NO_NEED = Condition(lambda opening: CloseCondition(opening.opened_s, None))
TEXT_NEED = Condition(lambda opening: CloseCondition(opening.opened_s, "3"))
ARRAYS = Condition(lambda opening: CloseCondition(np.array([opening.opened_s]), np.array([1, 2])))
RAISES = Condition(lambda opening: 1 / 0)
NO_SUCH_FIELD = Condition(lambda opening: CloseCondition(opening.open_s, 1))
CHECK_RAISES, TEXT_ARRIVALS, WAITS_RAISES = Checks(one), Counts(one), Waits(one)
OPENS_NONE = Opens(lambda opening: None)
OPEN_RAISES = Opens(lambda opening: 1 / 0)
NEVER = Opens(lambda opening: NeverEnough(opening, opening.opened_s, 3))
PAST = opens(closes_s=lambda window, now_s: -5.0)
STANDS_STILL = opens(closes_s=lambda window, now_s: now_s)
NOT_A_TIME = opens(closes_s=lambda window, now_s: float("nan"))
TEXT_TIME = opens(closes_s=lambda window, now_s: "5")
OBSERVE_RAISES = opens(observe=lambda window, arrivals, failures, now_s: {}["x"])
ENDLESS = opens(
    limit_s=property(lambda window: float("inf"), lambda window, value: None), closes_s=lambda _, now_s: 1e9
)
LATE_STRANGER = opens(late=property(lambda window: [77]))

NO_COSTS = Sends(charge=lambda costs: None)
CHARGE_RAISES = Sends(charge=lambda costs: 1 / 0)
NEGATIVE, NAN = changed(down_bytes=lambda values: -values), changed(up_bytes=lambda values: values * np.nan)
FRACTIONS = changed(down_bytes=lambda values: np.full(len(values), 2.5))
SHORT = changed(up_bytes=lambda values: values[:3])
NO_STREAMS = Sends(streams=lambda group: None)
FEW_STREAMS = Sends(streams=lambda group: group[:2])
TEXT_STREAMS = Sends(streams=lambda group: ["a"] * len(group))
FLOAT_STREAMS = Sends(streams=lambda group: group * 0.3)
STREAMS_RAISE = Sends(streams=lambda group: 1 / 0)

# mistakes that are none
WHOLE_FLOATS = changed(down_bytes=lambda values: values * 1.0, group=lambda values: values * 1.0)
ROUNDED_UP = Condition(lambda opening: CloseCondition(np.float64(opening.opened_s), 2.5))
THREE = Condition(lambda opening: CloseCondition(opening.opened_s, 3))
THREE_BY_EVENTS = Opens(lambda opening: OpenWindow(opening, opening.opened_s, 3))
LISTED = Sends(streams=lambda group: [0] * len(group))


def windows_of(close, transport, clients=6, faults=None):
    """Five windows; `close` and `transport` are as in a config."""
    rng = np.random.default_rng(3)
    network = dataclasses.replace(random_network(rng, clients, contention=True), server_up=1e4, server_down=1e4)
    costs = random_costs(rng, clients)
    costs = dataclasses.replace(costs, down_bytes=np.maximum(costs.down_bytes, 1000))
    arguments = network, WindowRule(close), transport, 3, costs
    it = Clock(*arguments) if faults is None else FaultyClock(*arguments, faults)
    return [dataclasses.asdict(it.next_window()) for _ in range(5)]


def refused(*arguments, **options):
    """The text of the error, which is one line."""
    with pytest.raises(UserError) as caught:
        windows_of(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


CONDITION = "; allowed is a CloseCondition of a finite limit_s and a need of at least 0"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("NO_CONDITION", "in window 1 condition gives None" + CONDITION),
        ("TEXT_LIMIT", "in window 1 condition gives CloseCondition(limit_s='5', need=1)" + CONDITION),
        ("NO_NEED", "in window 1 condition gives CloseCondition(limit_s=0.0, need=None)" + CONDITION),
        ("TEXT_NEED", "in window 1 condition gives CloseCondition(limit_s=0.0, need='3')" + CONDITION),
        ("ARRAYS", "need=array([1, 2]))" + CONDITION),
        ("RAISES", "ZeroDivisionError: division by zero)"),
        ("NO_SUCH_FIELD", "AttributeError: 'Opening' object has no attribute 'open_s')"),
        ("CHECK_RAISES", "ValueError: bad)"),
        ("TEXT_ARRIVALS", "arrivals gives '3'; allowed is None or an integer of at least 0"),
        ("WAITS_RAISES", "ZeroDivisionError: division by zero)"),
        ("OPENS_NONE", "in window 1 open gives None; allowed is an object of OpenWindow or a subclass"),
        ("OPEN_RAISES", "ZeroDivisionError: division by zero)"),
        ("NEVER", "allowed is a rule whose `enough` becomes true by the last arrival: window 1 cannot close"),
        ("PAST", "in window 1 closes_s gives -5.0; allowed is a time of at least now, 0 simulated s"),
        ("STANDS_STILL", "in window 1 closes_s gives 0.0; allowed is infinity while `enough` is false"),
        ("NOT_A_TIME", "in window 1 closes_s gives nan; allowed is a time of at least now"),
        ("TEXT_TIME", "in window 1 closes_s gives '5'; allowed is a time of at least now"),
        ("OBSERVE_RAISES", "KeyError: 'x')"),
        ("ENDLESS", "in window 1 limit_s at the close gives inf; allowed is a finite number of simulated s"),
    ],
)
@pytest.mark.parametrize("many", [0, 10**9])
@pytest.mark.parametrize("faults", [None, Faults(dropout=0.2)])
def test_a_close_rules_mistake_is_refused_in_one_line(name, says, many, faults, monkeypatch):
    monkeypatch.setattr(clock, "_MANY", many)
    said = refused(HERE + name, "delta", faults=faults)
    assert said.startswith("config.window.close") and repr(HERE + name) in said and says in said


def test_clients_that_are_cut_off_are_in_flight():
    said = refused(HERE + "LATE_STRANGER", "delta", faults=Faults())
    assert "in window 1 late gives [77]; allowed is a list of clients in flight" in said


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("NO_COSTS", "Sends.charge gives None; allowed is Costs of 6 clients"),
        ("CHARGE_RAISES", "ZeroDivisionError: division by zero)"),
        ("NEGATIVE", "ValueError: Costs.down_bytes has a negative or non-finite value)"),
        ("NAN", "ValueError: Costs.up_bytes has a negative or non-finite value)"),
        ("FRACTIONS", "ValueError: Costs.down_bytes has 2.5; allowed are whole numbers: round them)"),
        ("SHORT", "ValueError: Costs.up_bytes has shape (3,), not [M])"),
        ("NO_STREAMS", "(shape (), object); allowed is integers of shape (6,)"),
        ("FEW_STREAMS", "(shape (2,), int64); allowed is integers of shape (6,)"),
        ("TEXT_STREAMS", "(shape (6,), <U1); allowed is integers of shape (6,)"),
        ("FLOAT_STREAMS", "(shape (6,), float64); allowed is integers of shape (6,)"),
        ("STREAMS_RAISE", "ZeroDivisionError: division by zero)"),
    ],
)
def test_a_transports_mistake_is_refused_in_one_line(name, says):
    said = refused("all", HERE + name)
    assert said.startswith("config.transport.name") and repr(HERE + name) in said and says in said


def test_the_line_of_the_users_file_is_named():
    lines = inspect.getsource(inspect.getmodule(NeverEnough)).splitlines()
    line = lines.index("RAISES = Condition(lambda opening: 1 / 0)") + 1
    assert f"failed (line {line}: ZeroDivisionError" in refused(HERE + "RAISES", "delta")


def test_a_check_that_raises_is_refused_with_the_config():
    with pytest.raises(UserError, match="CHECK_RAISES' failed .line .*ValueError: bad"):
        validate(tiny.config(window__close=HERE + "CHECK_RAISES", window__dispatch="window_end"))


@pytest.mark.parametrize("many", [0, 10**9])
def test_a_need_that_is_no_integer_is_rounded_up(many, monkeypatch):
    monkeypatch.setattr(clock, "_MANY", many)
    expected = windows_of(HERE + "THREE_BY_EVENTS", "delta")
    assert windows_of(HERE + "THREE", "delta") == windows_of(HERE + "ROUNDED_UP", HERE + "LISTED") == expected


def test_bytes_may_be_floats_without_a_fraction():
    assert windows_of("all", HERE + "WHOLE_FLOATS") == windows_of("all", "delta")


def test_a_built_in_that_never_closes_is_a_bug():
    assert isinstance(WindowRule("all").never_closes(1), RuntimeError)
    assert isinstance(WindowRule(HERE + "THREE").never_closes(1), UserError)

"""Custom close rules and transports from a user's file: equal to built-ins to the bit, else refused in one line."""

import dataclasses
import json
from unittest import mock

import numpy as np
import pytest
import tiny
from clock_random import random_costs, random_network

from prfl_jax import registry
from prfl_jax.clock import (
    CLOSE_RULES,
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
from prfl_jax.config.canonical import config_hash, to_dict
from prfl_jax.config.validate import validate
from prfl_jax.runtime.clock_only import run_clock
from prfl_jax.system.errors import UserError

# --- as a user would write them; named `tests.clock.test_plugins:...`, or copied to a file ---


class EveryDt(CloseRule):
    """What `fixed` does."""

    may_be_empty = fixed_length = first_may_wait = True
    length_key = "dt_s"

    def condition(self, settings, opening):
        return CloseCondition(opening.start_s + settings.dt_s, 0)


class EveryDtByEvents(EveryDt):
    """The same, not known at the opening."""

    def open(self, settings, opening):
        return OpenWindow(opening, opening.start_s + settings.dt_s, 0)


class FirstK(CloseRule):
    """What `k_arrivals` does."""

    def arrivals(self, settings):
        return settings.k

    def condition(self, settings, opening):
        return CloseCondition(opening.opened_s, settings.k)


class Half(CloseRule):
    """Half of the clients in flight have arrived: no built-in does this."""

    def condition(self, settings, opening):
        return CloseCondition(opening.opened_s, (len(opening.in_flight) + 1) // 2)


class CutAtDt(CloseRule):
    """Whoever has not arrived after dt_s is cut off."""

    synchronous = cuts_off = may_be_empty = True

    def open(self, settings, opening):
        return Cut(opening, opening.opened_s + settings.dt_s, 0)


class Cut(OpenWindow):
    @property
    def late(self):
        return sorted(self.awaited)


class Nowhere(CloseRule):
    def condition(self, settings, opening):
        return CloseCondition(float("nan"), 1)


class Tuples(CloseRule):
    def condition(self, settings, opening):
        return opening.opened_s, 1


class NoRule(CloseRule):
    pass


class OneStreamEach(Transport):
    """What `unicast` does."""

    shares = False


class SubModels(Transport):
    """What `distinct` does."""

    smallest_first = True

    def streams(self, group):
        return np.asarray(group)


class Quantised(Transport):
    """One byte for each value that is sent down, and no masks: no built-in does this."""

    sends_mask = False

    def charge(self, costs):
        return dataclasses.replace(costs, down_bytes=costs.down_bytes // 4)


class Fewer(Transport):
    def charge(self, costs):
        return dataclasses.replace(
            costs, **{field.name: getattr(costs, field.name)[1:] for field in dataclasses.fields(costs)}
        )


EVERY_DT, EVENTS, FIRST_K, HALF, CUT = EveryDt(), EveryDtByEvents(), FirstK(), Half(), CutAtDt()
NOWHERE, TUPLES, NO_RULE = Nowhere(), Tuples(), NoRule()
ONE_STREAM_EACH, SUB_MODELS, QUANTISED, FEWER = OneStreamEach(), SubModels(), Quantised(), Fewer()
HERE = "tests.clock.test_plugins:"


def windows_of(rule, transport, seed=3, clients=6, many=10**9, faults=None, server=None, cut=None):
    """20 windows with new costs after 10, and in how many of them the clock worked with arrays."""
    rng = np.random.default_rng(seed)
    network = random_network(rng, clients, contention=True)
    if server is not None:
        network = dataclasses.replace(network, server_up=server, server_down=server)
    costs = [random_costs(rng, clients) for _ in range(2)]
    costs = [dataclasses.replace(one, down_bytes=np.maximum(one.down_bytes, 1000)) for one in costs]  # no round of 0 s
    arguments, more = (network, rule, transport, seed), () if faults is None else (faults,)
    kind = Clock if faults is None else FaultyClock
    with mock.patch.object(clock, "_MANY", many):
        it, windows, arrays = kind(*arguments, costs[0], *more), [], 0
        for number in range(20):
            if number == 10:
                it.set_costs(costs[1])
            windows.append(dataclasses.asdict(it.next_window()))
            arrays += it._vectorized is not None
            if number == cut:
                it = kind.from_state(*arguments, json.loads(json.dumps(it.to_state())), *more)
    return windows, arrays


CLOSES = [
    ("EVERY_DT", WindowRule("fixed", dt_s=0.8)),
    ("EVERY_DT", WindowRule("fixed", dt_s=0.8, first_waits_for_all=False, dispatch="on_arrival")),
    ("EVENTS", WindowRule("fixed", dt_s=0.8, first_waits_for_all=False)),
    ("FIRST_K", WindowRule("k_arrivals", k=3)),
    ("FIRST_K", WindowRule("k_arrivals", k=3, dispatch="on_arrival", cohort=2)),
]


@pytest.mark.parametrize(("name", "rule"), CLOSES)
@pytest.mark.parametrize("faults", [None, Faults(), Faults(dropout=0.2, lost_upload=0.1)])
@pytest.mark.parametrize("many", [0, 10**9])
def test_a_custom_close_rule_equals_the_built_in(name, rule, faults, many):
    mine = dataclasses.replace(rule, close=HERE + name)
    built_in, _ = windows_of(rule, "delta", faults=faults, many=many)
    assert windows_of(mine, "delta", faults=faults, many=many)[0] == built_in
    assert windows_of(mine, "delta", faults=faults, many=many, cut=7)[0] == built_in


@pytest.mark.parametrize(("name", "built_in"), [("ONE_STREAM_EACH", "unicast"), ("SUB_MODELS", "distinct")])
@pytest.mark.parametrize("faults", [None, Faults(dropout=0.2)])
@pytest.mark.parametrize("many", [0, 10**9])
def test_a_custom_transport_equals_the_built_in(name, built_in, faults, many):
    rule = WindowRule("fixed", dt_s=0.8)
    expected, _ = windows_of(rule, built_in, faults=faults, many=many, server=40.0)
    assert windows_of(rule, HERE + name, faults=faults, many=many, server=40.0)[0] == expected
    assert windows_of(rule, HERE + name, faults=faults, many=many, server=40.0, cut=7)[0] == expected


def test_arrays_are_used_where_a_custom_close_is_known_at_once():
    used = {
        name: windows_of(WindowRule(HERE + name, dt_s=0.8), HERE + "SUB_MODELS", many=0, server=1e4)[1]
        for name in ("EVERY_DT", "HALF", "EVENTS")
    }
    assert used == {"EVERY_DT": 20, "HALF": 20, "EVENTS": 0}


@pytest.mark.parametrize("close", ["HALF", "FIRST_K"])
@pytest.mark.parametrize("transport", ["SUB_MODELS", "QUANTISED"])
def test_arrays_equal_events_for_custom_rules_and_transports(close, transport):
    arguments = WindowRule(HERE + close, k=2), HERE + transport
    for server in (5.0, 20.0, 1e4):
        assert windows_of(*arguments, many=0, server=server)[0] == windows_of(*arguments, server=server)[0]


def test_a_custom_transport_says_what_is_sent():
    rule = WindowRule("all")
    whole, quantised = windows_of(rule, "delta", clients=1)[0], windows_of(rule, HERE + "QUANTISED", clients=1)[0]
    rng = np.random.default_rng(3)
    random_network(rng, 1, True)
    costs = random_costs(rng, 1)
    assert whole[0]["bytes_client_down"] == int(max(costs.down_bytes[0], 1000) + costs.mask_bytes[0])
    assert quantised[0]["bytes_client_down"] == int(max(costs.down_bytes[0], 1000) // 4)
    assert quantised[0]["bytes_up"] == whole[0]["bytes_up"]


def test_a_custom_rule_may_cut_clients_off():
    rule = WindowRule(HERE + "CUT", dt_s=0.8)
    windows, _ = windows_of(rule, "delta", faults=Faults())
    assert {failure["kind"] for window in windows for failure in map(_as_dict, window["failures"])} == {"late"}
    assert all(window["end_s"] - window["start_s"] == pytest.approx(0.8) for window in windows)
    with pytest.raises(ValueError, match="FaultyClock"):
        windows_of(rule, "delta")


def _as_dict(failure):
    return failure._asdict() if hasattr(failure, "_asdict") else failure


# --- from a config ---


def own_file(tmp_path):
    """The rules of this module as a user's file."""
    source = tmp_path / "own_windows.py"
    source.write_text(
        "from prfl_jax.clock import CloseCondition, CloseRule, Transport\n"
        "class EveryDt(CloseRule):\n"
        "    may_be_empty = fixed_length = first_may_wait = True\n"
        "    def condition(self, settings, opening):\n"
        "        return CloseCondition(opening.start_s + settings.dt_s, 0)\n"
        "class Unicast(Transport):\n"
        "    shares = False\n"
        "EVERY_DT, UNICAST = EveryDt(), Unicast()\n"
    )
    return source


@pytest.mark.parametrize("faults", [{}, {"faults__dropout": 0.2}])
def test_the_clock_of_a_config_takes_both_from_a_file(tmp_path, faults):
    source = own_file(tmp_path)
    changes = {"window__close": f"{source}:EVERY_DT", "transport__name": f"{source}:UNICAST"}
    mine, built_in = (
        tiny.config(model__name="conv2", **faults, **more) for more in (changes, {"transport__name": "unicast"})
    )
    validate(mine)
    theirs, ours = run_clock(built_in, 40), run_clock(mine, 40)
    assert {**ours, "host_s": 0} == {**theirs, "host_s": 0}
    assert source.read_bytes() in registry.sources(mine)
    assert to_dict(mine)["window"]["close"] == f"{source}:EVERY_DT" and config_hash(mine) != config_hash(built_in)


def test_a_run_with_both_from_a_file_trains_the_same_models(tmp_path):
    source = own_file(tmp_path)
    mine = tiny.run("prfl", window__close=f"{source}:EVERY_DT", transport__name=f"{source}:UNICAST")
    built_in = tiny.run("prfl", transport__name="unicast")
    tiny.same(mine.params, built_in.params)
    for kind in ("window", "eval", "interval", "final"):
        assert mine.of(kind) == built_in.of(kind)


# --- what is refused ---


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"window__close": "sometimes"}, "config.window.close='sometimes': allowed is one of fixed, all, k_arrivals"),
        ({"window__close": HERE + "SUB_MODELS"}, "is a SubModels: "),
        ({"window__close": HERE + "EveryDt"}, "is the class <class 'tests.clock.test_plugins.EveryDt'>"),
        ({"window__close": HERE + "NO_RULE"}, "(NoRule) must override condition or open"),
        ({"window__close": HERE + "NOTHING"}, "there is no NOTHING in it"),
        ({"window__close": HERE + "CUT", "window__dispatch": "on_arrival"}, "config.window.dispatch='on_arrival': "),
        ({"window__close": HERE + "FIRST_K", "window__k": 5}, "config.window.k=5: allowed is at most clients.number=4"),
        ({"transport__name": "pigeon"}, "config.transport.name='pigeon': allowed is one of delta, distinct, one_copy"),
        ({"transport__name": HERE + "EVERY_DT"}, "is a EveryDt: "),
        ({"transport__name": "no_such_module:X"}, "config.transport.name: 'no_such_module:X' cannot be loaded"),
        ({"transport__bytes": HERE + "EVERY_DT"}, "allowed is one of counted, density"),
        ({"window__dispatch": HERE + "EVERY_DT"}, "allowed is one of window_end, on_arrival"),
    ],
)
def test_an_object_of_another_kind_is_refused_in_one_line(changes, says):
    with pytest.raises(UserError) as caught:
        validate(tiny.config(**changes))
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "gives"), [("NOWHERE", "CloseCondition(limit_s=nan, need=1)"), ("TUPLES", "(0.0, 1)")]
)
@pytest.mark.parametrize("many", [0, 10**9])
def test_the_condition_of_every_window_is_checked(name, gives, many):
    with pytest.raises(UserError) as caught:
        windows_of(WindowRule(HERE + name), "delta", many=many, server=1e4)
    said = str(caught.value)
    assert said.startswith(f"config.window.close='{HERE}{name}': in window 1 condition gives {gives}; allowed is a")


def test_the_costs_of_a_custom_transport_are_checked():
    with pytest.raises(UserError, match="Fewer.charge gives costs of 5 clients; allowed is 6"):
        windows_of(WindowRule("all"), HERE + "FEWER")


def test_names_of_built_ins_with_a_trait():
    assert CLOSE_RULES.with_trait(lambda rule: rule.synchronous) == ["all", "deadline"]
    assert CLOSE_RULES.with_trait(lambda rule: rule.known_at_opening) == [
        "fixed", "all", "k_arrivals", "each_arrival", "release"
    ]  # fmt: skip
    assert CLOSE_RULES.with_trait(lambda rule: rule.waits_for_all(1)) == ["all", "release"]

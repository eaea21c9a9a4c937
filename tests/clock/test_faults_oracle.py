"""The clock with faults against the slow oracle, and what holds on any network whatever goes wrong."""

import dataclasses
import itertools
import json
import math
from unittest import mock

import numpy as np
import pytest
from clock_random import FEW, RULES, random_costs, random_network
from faults_oracle import FaultyOracle
from hypothesis import given, settings
from hypothesis import strategies as st
from marked import every_fifth

from prfl_jax.clock import TRANSPORTS, Clock, Faults, FaultyClock, WindowRule, link
from prfl_jax.clock.traces import Presence, Trace
from prfl_jax.system.errors import NobodyLeft, UserError

RULES = (
    *RULES,
    WindowRule("deadline", deadline_share=0.6, deadline_factor=1.3, first_waits_for_all=False),
    WindowRule("deadline", deadline_share=0.85, deadline_factor=1.5, first_waits_for_all=True),
    WindowRule("deadline", deadline_share=0.5, deadline_factor=1.0, first_waits_for_all=False, cohort=3),
)


def name(value):
    """The id of a rule; pytest makes those of other values."""
    if isinstance(value, WindowRule):
        r = value
        return f"{r.close}-{r.dispatch}-{r.first_waits_for_all}-{r.cohort}-{r.deadline_share}"


def random_faults(rng, clients):
    """Probabilities, intervals and traces by client; client 0 is always there, so that nobody waits in vain."""
    chances = [float(p) if rng.random() < 0.6 else 0.0 for p in rng.uniform(0, 0.4, 4)]
    intervals, traces = {}, {}
    for client in range(clients):
        if client and rng.random() < 0.4:
            times = np.sort(rng.uniform(0, 25, 2 * int(rng.integers(1, 5)))).tolist()
            if rng.random() < 0.5:
                times[-1] = math.inf
            if rng.random() < 0.5:
                times[0] = 0.0
            intervals[client] = list(zip(times[::2], times[1::2], strict=True))
        if rng.random() < 0.4:
            times = np.sort(rng.uniform(0, 20, int(rng.integers(1, 30))))
            traces[client] = [(t, float(rng.uniform(0.3, 5)), float(rng.uniform(0.5, 8))) for t in times.tolist()]
    presence = Presence([intervals.get(client, [(0.0, math.inf)]) for client in range(clients)])
    up, down = (
        {i: Trace([line[0] for line in own], [1e6 * line[k] for line in own]) for i, own in traces.items()}
        for k in (1, 2)
    )
    return Faults(*chances, presence=presence if intervals else None, up=up, down=down), intervals, traces


def setting(seed, clients, contention, rule):
    rng = np.random.default_rng(seed)
    network = random_network(rng, clients, contention)
    costs = [random_costs(rng, clients) for _ in range(3)]
    costs = [
        dataclasses.replace(c, up_bytes=np.maximum(c.up_bytes, 50_000), down_bytes=np.maximum(c.down_bytes, 50_000))
        for c in costs
    ]
    if rule.dispatch == "window_end":
        costs[0] = random_costs(rng, clients)  # also some with nothing to send
    return network, costs, random_faults(rng, clients)


@pytest.mark.parametrize("rule,transport", every_fifth(itertools.product(RULES, TRANSPORTS)), ids=name)
@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**32), st.integers(3, 7), st.booleans(), FEW)
def test_same_as_oracle(transport, rule, seed, clients, contention, few):
    network, costs, (faults, intervals, traces) = setting(seed, clients, contention, rule)
    with mock.patch.object(link, "_FEW", few):
        clock = FaultyClock(network, rule, transport, seed, costs[0], faults)
        oracle = FaultyOracle(network, rule, transport, seed, costs[0], faults, intervals, traces)
        for number in range(1, 13):
            if number in (5, 9):
                clock.set_costs(costs[number // 4])
                oracle.set_costs(costs[number // 4])
            window = clock.next_window()
            end, arrivals, failures, copies, *counted = oracle.next_window()
            assert window.end_s == pytest.approx(end, rel=1e-9, abs=1e-8)
            assert [(a.client, a.index, a.version) for a in window.arrivals] == [
                (job.client, job.index, job.version) for job in arrivals
            ]
            for a, job in zip(window.arrivals, arrivals, strict=True):
                assert (a.dispatched_s, a.downloaded_s, a.computed_s, a.arrived_s) == pytest.approx(
                    (job.dispatched, job.downloaded, job.computed, job.arrived), rel=1e-9, abs=1e-8
                )
            assert [(f.client, f.index, f.kind) for f in window.failures] == [
                (job.client, job.index, job.kind) for job in failures
            ]
            for f, job in zip(window.failures, failures, strict=True):
                assert (f.dispatched_s, f.ended_s) == pytest.approx((job.dispatched, job.failed_s), rel=1e-9, abs=1e-8)
                assert abs(f.bytes_up - job.up_got) <= 2
                assert abs(f.bytes_down - job.mask_got - job.got) <= 2
                assert f.bytes_down + f.bytes_missed == job.mask_need + job.need
            assert [(r.client, r.index) for r in window.repeats] == [(copy.client, copy.index) for copy in copies]
            for r, copy in zip(window.repeats, copies, strict=True):
                assert r.ended_s == pytest.approx(copy.ended_s, rel=1e-9, abs=1e-8)
                assert abs(r.bytes_up - copy.up_got) <= 2
            slack = 6 * clients
            got = window.bytes_down, window.bytes_client_down, window.bytes_up
            assert all(abs(one - other) <= slack for one, other in zip(got, counted, strict=True))


def plain(window):
    return dataclasses.asdict(window)


def fitting(rule, clients):
    rule = dataclasses.replace(rule, cohort=min(rule.cohort, clients))
    if rule.close == "k_arrivals" and rule.k > clients:
        rule = WindowRule("each_arrival", dispatch=rule.dispatch, cohort=rule.cohort)
    return rule


any_clock = given(
    st.integers(0, 2**32), st.integers(1, 6), st.booleans(), st.sampled_from(RULES), st.sampled_from(list(TRANSPORTS))
)


@settings(deadline=None, max_examples=80)
@any_clock
def test_every_dispatch_ends_once_and_every_byte_is_somebodys(seed, clients, contention, rule, transport):
    rule = fitting(rule, clients)
    network, costs, (faults, intervals, _) = setting(seed, clients, contention, rule)
    clock = FaultyClock(network, rule, transport, seed, costs[0], faults)
    flying, up, owned, received, owed, before = {}, 0, 0, 0, 0, 0.0
    for _ in range(20):
        window = clock.next_window()
        assert window.start_s == before <= window.end_s
        before = window.end_s
        for d in window.dispatches:
            assert window.start_s <= d.time_s <= window.end_s and d.version == window.index - 1
            assert (d.client, d.index) not in flying and faults.there(d.client, d.time_s)
            flying[d.client, d.index] = d
        ended = [*window.arrivals, *window.failures]
        for one in ended:
            d = flying.pop((one.client, one.index))
            assert d.time_s == one.dispatched_s <= one.ended_s <= window.end_s
            for begin, end in intervals.get(one.client, [(0.0, math.inf)]):
                if begin <= d.time_s < end:  # the whole round lies within one stay
                    assert one.ended_s <= end
        for listed in (window.arrivals, window.failures, window.repeats):
            assert [one.ended_s for one in listed] == sorted(one.ended_s for one in listed)
        received += window.bytes_client_down
        owed += sum(d.bytes_down for d in window.dispatches) - sum(f.bytes_missed for f in window.failures)
        up += window.bytes_up
        owned += sum(one.bytes_up for one in (*ended, *window.repeats))
        assert {client for client, _ in flying} == set(clock.in_flight)
        assert len({client for client, _ in flying}) == len(flying)
        if rule.cohort:
            assert len(flying) <= rule.cohort
    left = [flight.down_bytes - flight.received(before) for flight in clock._transfers.flights.values()]
    assert owed - received == sum(left)
    under_way = clock._transfers.links[1].active  # uploads and copies
    assert up - owned == sum(stream.counted for stream in under_way) and len(under_way) <= clients


@settings(deadline=None, max_examples=40)
@any_clock
def test_resume_is_exact(seed, clients, contention, rule, transport):
    rule = fitting(rule, clients)
    network, costs, (faults, _, _) = setting(seed, clients, contention, rule)
    arguments = (network, rule, transport, seed)
    whole = FaultyClock(*arguments, costs[0], faults)
    windows = [plain(whole.next_window()) for _ in range(14)]
    for cut in (1, 3, 7):
        clock = FaultyClock(*arguments, costs[0], faults)
        for _ in range(cut):
            clock.next_window()
        state = json.loads(json.dumps(clock.to_state(), allow_nan=False))
        again = FaultyClock.from_state(*arguments, state, faults)
        assert [plain(again.next_window()) for _ in range(14 - cut)] == windows[cut:]


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32), st.integers(1, 6), st.booleans(), st.sampled_from(RULES), st.sampled_from(list(TRANSPORTS))
)
def test_without_faults_it_is_the_clock_to_the_bit(seed, clients, contention, rule, transport):
    rule = fitting(rule, clients)
    if rule.close == "deadline":
        rule = WindowRule("fixed", dt_s=1.1, dispatch="on_arrival", cohort=min(2, clients))
    network, costs, _ = setting(seed, clients, contention, rule)
    one, other = (kind(network, rule, transport, seed, costs[0]) for kind in (Clock, FaultyClock))
    for number in range(12):
        if number == 5:
            one.set_costs(costs[1])
            other.set_costs(costs[1])
        assert plain(one.next_window()) == plain(other.next_window())


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.booleans())
def test_methods_meet_the_same_faults(seed, contention):
    """What befalls the k-th dispatch of a client does not depend on windows, transport or who else is there."""
    met = []
    for rule, transport in zip((RULES[0], RULES[4], RULES[8], RULES[13]), TRANSPORTS, strict=True):
        network, costs, _ = setting(seed, 5, contention, rule)
        faults = Faults(0.15, 0.15, 0.15, 0.15)
        clock = FaultyClock(network, rule, transport, seed, costs[1], faults)
        fates = {}
        for window in (clock.next_window() for _ in range(30)):
            fates |= {(a.client, a.index): None for a in window.arrivals}
            fates |= {(f.client, f.index): f.kind for f in window.failures}
        met.append(fates)
    for other in met[1:]:
        both = met[0].keys() & other.keys()
        assert len(both) > 20
        assert all(met[0][key] == other[key] for key in both)


@pytest.mark.parametrize(
    "rule", [r for r in RULES if r.close != "fixed"], ids=lambda r: f"{r.close}-{r.dispatch}-{r.cohort}"
)
@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32), st.integers(1, 6), st.sampled_from(list(TRANSPORTS)))
def test_a_clock_that_ended_is_restored_at_its_end(rule, seed, clients, transport):
    """The window that never closes has dispatched, and moved in time: nothing of it is run once more."""
    rule = fitting(rule, clients)
    network, costs, (faults, _, _) = setting(seed, clients, True, rule)
    stays = [[(0.0, t)] for t in np.random.default_rng(seed).uniform(1, 12, clients).tolist()]
    faults = dataclasses.replace(faults, presence=Presence(stays))
    arguments = (network, rule, transport, seed)
    clock = FaultyClock(*arguments, costs[1], faults)
    said = []
    for _ in range(3):
        with pytest.raises(NobodyLeft) as info:
            while True:
                clock.next_window()
                assert not said
        said.append(str(info.value))
        state = json.loads(json.dumps(clock.to_state(), allow_nan=False))
        clock = FaultyClock.from_state(*arguments, state, faults)
        assert clock.to_state() == state
    assert len(set(said)) == 1


@pytest.mark.parametrize("rule", RULES, ids=name)
def test_nobody_waits_in_vain(rule):
    """All leave for good: windows of fixed length stay empty, any other rule says so."""
    network, costs, _ = setting(3, 5, True, rule)
    faults = Faults(presence=Presence([[(0.0, 3.0 + i)] for i in range(5)]))
    clock = FaultyClock(network, rule, "delta", 0, costs[1], faults)
    try:
        windows = [clock.next_window() for _ in range(40)]
    except UserError as error:
        assert "faults.leave_s" in str(error) and "simulated s" in str(error) and rule.close != "fixed"
    else:
        assert rule.close == "fixed" and not windows[-1].arrivals and not windows[-1].dispatches

"""Ties in the clock: on networks of simple fractions it does what exact arithmetic says; k arrivals close k."""

import dataclasses
import itertools
import json
import math
import types
from fractions import Fraction as F
from unittest import mock

import numpy as np
import pytest
from clock_oracle import Oracle
from clock_random import FEW
from faults_oracle import FaultyOracle
from hypothesis import given, settings
from hypothesis import strategies as st
from marked import every_fifth

from prfl_jax.clock import TRANSPORTS, Clock, Costs, Faults, FaultyClock, Network, WindowRule, clock, link, ties
from prfl_jax.clock.traces import Presence, Trace

MB = 10**6
RULES = (
    WindowRule("fixed", dt_s=F(3, 10), first_waits_for_all=False),
    WindowRule("fixed", dt_s=F(7, 10), first_waits_for_all=True),
    WindowRule("fixed", dt_s=F(6, 10), first_waits_for_all=False, dispatch="on_arrival"),
    WindowRule("fixed", dt_s=F(6, 10), first_waits_for_all=True, dispatch="on_arrival"),
    WindowRule("all"),
    WindowRule("all", cohort=3),
    WindowRule("k_arrivals", k=2),
    WindowRule("k_arrivals", k=3, dispatch="on_arrival"),
    WindowRule("k_arrivals", k=3, dispatch="on_arrival", cohort=3),
    WindowRule("each_arrival"),
    WindowRule("each_arrival", cohort=3),
    WindowRule("each_arrival", dispatch="on_arrival"),
    WindowRule("release", release_min_s=F(3, 10)),
    WindowRule("release", release_min_s=F(3, 10), dispatch="on_arrival"),
)
DEADLINES = (
    WindowRule("deadline", deadline_share=0.6, deadline_factor=F(6, 5), first_waits_for_all=False),
    WindowRule("deadline", deadline_share=0.8, deadline_factor=F(3, 2), first_waits_for_all=True),
    WindowRule("deadline", deadline_share=0.5, deadline_factor=F(1), first_waits_for_all=False, cohort=3),
)


def name(value):
    """The id of a rule; pytest makes those of other values."""
    if isinstance(value, WindowRule):
        return f"{value.close}-{value.dispatch}-{value.first_waits_for_all}-{value.k}-{value.cohort}"


def floats(values):
    return tuple(map(float, values))


def pick(rng, values):
    return values[int(rng.integers(len(values)))]


def fractions(seed, clients):
    """(exact network, exact costs): few values, so that much happens at the same moment."""
    rng = np.random.default_rng(seed)
    tenth = [F(k, 10) for k in range(1, 8)]
    speeds = [F(1), F(2), F(5), F(10), F(10, 3), F(5, 2), F(7, 10), F(3)]
    some = [pick(rng, speeds) for _ in range(2)]  # so that clients are alike
    network = Network(
        [pick(rng, some if rng.random() < 0.6 else speeds) for _ in range(clients)],
        [pick(rng, some if rng.random() < 0.6 else speeds) for _ in range(clients)],
        pick(rng, [F(1), F(5), F(10), F(25, 3), F(1000)]), pick(rng, [F(1), F(3), F(10, 3), F(7), F(1000)]),
        client_sigma=0, server_sigma=0, contention=bool(rng.random() < 0.7),
    )  # fmt: skip
    sizes = sorted(pick(rng, tenth) * MB for _ in range(3))
    group = [int(rng.integers(3)) for _ in range(clients)]
    masked = rng.random() < 0.5
    exact = types.SimpleNamespace(
        down_bytes=[int(sizes[g]) for g in group],
        mask_bytes=[int(pick(rng, [F(0), *tenth[:3]]) * MB) if masked else 0 for _ in range(clients)],
        up_bytes=[int(pick(rng, [sizes[0], sizes[2]])) for _ in range(clients)],
        compute_s=[pick(rng, [F(0), F(1, 10), F(1, 5), F(1, 3)]) for _ in range(clients)],
        group=group,
    )
    return network, exact


def rounded(network, exact, rule):
    """The same for the clock, which computes with floats."""
    fields = {field.name: getattr(network, field.name) for field in dataclasses.fields(network)}
    speeds = {key: floats(fields[key]) for key in ("client_up", "client_down")}
    speeds |= {key: float(fields[key]) for key in ("server_up", "server_down")}
    costs = Costs(
        exact.down_bytes, exact.mask_bytes, exact.up_bytes, np.array(floats(exact.compute_s)), exact.group
    )  # fmt: skip
    times = {key: float(getattr(rule, key)) for key in ("dt_s", "release_min_s", "deadline_factor")}
    return dataclasses.replace(network, **speeds), costs, dataclasses.replace(rule, **times)


def same(window, end, jobs):
    """Window and arrivals are those of exact arithmetic, up to rounding; what is equal there is equal here."""
    assert window.end_s == pytest.approx(float(end), rel=1e-12, abs=0)
    assert [(a.client, a.index, a.version) for a in window.arrivals] == [(j.client, j.index, j.version) for j in jobs]
    for a, job in zip(window.arrivals, jobs, strict=True):
        got = a.dispatched_s, a.downloaded_s, a.computed_s, a.arrived_s
        assert got == pytest.approx(floats((job.dispatched, job.downloaded, job.computed, job.arrived)), rel=1e-12)
        assert window.end_s >= a.arrived_s >= a.computed_s >= a.downloaded_s >= a.dispatched_s
    times = {job.arrived: a.arrived_s for a, job in zip(window.arrivals, jobs, strict=True)}
    assert [times[job.arrived] for job in jobs] == [a.arrived_s for a in window.arrivals]
    if window.end_s == window.start_s:
        assert set(times.values()) <= {window.end_s}


def follows(oracle, ways, windows):
    """The ways through the clock against the oracle, window by window, and against each other to the bit."""
    before, exact_before, zero = 0.0, F(0), 0
    for _ in range(windows):
        end, jobs, *counted = oracle.next_window()
        got = [way.next_window() for way in ways]
        same(got[0], end, jobs)
        assert all(dataclasses.asdict(other) == dataclasses.asdict(got[0]) for other in got[1:])
        assert got[0].start_s == before and (got[0].end_s == before) == (end == exact_before)
        bytes_of = got[0].bytes_down, got[0].bytes_client_down, got[0].bytes_up
        slack = 4 * len(oracle.net.client_up)
        assert all(abs(one - float(other)) <= slack for one, other in zip(bytes_of, counted, strict=True))
        zero += end == exact_before
        before, exact_before = got[0].end_s, end
    return zero


def both_ways(arguments, costs, cut=None):
    """One clock that goes event by event, one that takes whole windows as arrays where it can."""
    made = []
    for many in (10**9, 0):
        with mock.patch.object(clock, "_MANY", many):
            made.append(Clock(*arguments, costs))
    return made


@pytest.mark.parametrize("rule,transport", every_fifth(itertools.product(RULES, TRANSPORTS)), ids=name)
@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32), st.integers(3, 7), FEW)
def test_clock_does_what_exact_arithmetic_says(transport, rule, seed, clients, few):
    network, exact = fractions(seed, clients)
    own, costs, float_rule = rounded(network, exact, rule)
    arguments = (own, float_rule, transport, seed)
    with mock.patch.object(link, "_FEW", few):
        ways = [*both_ways(arguments, costs), FaultyClock(*arguments, costs)]
        follows(Oracle(network, rule, transport, seed, exact, exact=True), ways, 12)


# --- by hand ---


def unicast(up, down, server_up, server_down, rule, compute=None, contention=True, sizes=MB):
    """A clock of clients that are sent and send back 1 MB, at steady speeds."""
    clients = len(up)
    flat = np.full(clients, sizes)
    network = Network(tuple(up), tuple(down), server_up, server_down, 0.0, 0.0, contention)
    costs = Costs(flat, 0 * flat, flat, np.array(compute or [0.0] * clients), np.arange(clients))
    return network, rule, "unicast", 0, costs


def test_of_two_simultaneous_uploads_the_lower_id_goes_first():
    """1/10 + 2/10 s and 3/10 s: client 0 has the server (1 MB/s) until 1.3 s, then client 1 until 2.3 s."""
    assert 1 / 10 + 0.2 != 1 / (10 / 3)
    setting = unicast((2.0, 1.0), (10.0, 10 / 3), 1000.0, 1.0, WindowRule("all"), compute=[0.2, 0.0])
    for made in (*both_ways(setting[:4], setting[4]), FaultyClock(*setting)):
        window = made.next_window()
        assert [(a.client, pytest.approx(a.arrived_s, rel=1e-12)) for a in window.arrivals] == [(0, 1.3), (1, 2.3)]


def test_groups_of_moments_are_not_chained():
    """0, .9 and 1.8 tolerances apart: the first two tie, the third ties with the second alone and begins its own."""
    base = 3.0
    times = np.array([base, base * (1 + 0.9e-12), base * (1 + 1.8e-12), base * (1 + 2.5e-12), 4.0])
    assert ties.moments(times).tolist() == [base, base, times[2], times[2], 4.0]
    assert [ties.earliest(times, k) for k in range(5)] == [base, base, times[2], times[2], 4.0]
    apart = np.array([0.0, 0.0, 1.0, 1.0 + 1e-11])
    assert ties.moments(apart) is apart
    assert not ties.after(base * (1 + 0.9e-12), base) and ties.after(base * (1 + 1.1e-12), base)


def test_an_arrival_at_a_windows_end_belongs_to_it():
    """Rounds of .3 s in windows of .1 s: .3 and .1 + .1 + .1 differ in the last bit; all arrive in every third."""
    assert 0.1 + 0.1 + 0.1 > 0.3
    for dispatch in ("window_end", "on_arrival"):
        rule = WindowRule("fixed", dt_s=0.1, first_waits_for_all=False, dispatch=dispatch)
        setting = unicast((10.0,) * 3, (5.0,) * 3, 1000.0, 1000.0, rule)
        for made in (*both_ways(setting[:4], setting[4]), FaultyClock(*setting)):
            counts = [len(made.next_window().arrivals) for _ in range(3000)]
            assert counts == [0, 0, 3] * 1000


@pytest.mark.parametrize("dispatch", ["window_end", "on_arrival"])
def test_each_of_four_equal_arrivals_closes_a_window(dispatch):
    rule = WindowRule("each_arrival", dispatch=dispatch)
    setting = unicast((2.0,) * 4, (4.0,) * 4, 1000.0, 1000.0, rule)
    for made in (*both_ways(setting[:4], setting[4]), FaultyClock(*setting)):
        windows = [made.next_window() for _ in range(8)]
        assert [window.end_s for window in windows] == [0.75] * 4 + [1.5] * 4
        assert [[a.client for a in window.arrivals] for window in windows] == [[0], [1], [2], [3]] * 2
        # each is sent the model of the window that its arrival closed
        assert [[(d.client, d.version) for d in window.dispatches] for window in windows[1:5]] == [
            [(0, 1)], [(1, 2)], [(2, 3)], [(3, 4)],
        ]  # fmt: skip
        assert [window.index - 1 - window.arrivals[0].version for window in windows] == [0, 1, 2, 3, 3, 3, 3, 3]
        assert [window.bytes_up for window in windows] == [4 * MB, 0, 0, 0] * 2


def test_k_equal_arrivals_close_a_window_and_the_others_the_next():
    """K = 3 of 4: whoever does not close is sent the old model at once, as if they came one after the other."""
    rule = WindowRule("k_arrivals", k=3, dispatch="on_arrival")
    setting = unicast((2.0,) * 4, (4.0,) * 4, 1000.0, 1000.0, rule)
    for made in (*both_ways(setting[:4], setting[4]), FaultyClock(*setting)):
        windows = [made.next_window() for _ in range(5)]
        assert [[a.client for a in window.arrivals] for window in windows] == [
            [0, 1, 2], [3, 0, 1], [2, 3, 0], [1, 2, 3], [0, 1, 2],
        ]  # fmt: skip
        assert [window.end_s for window in windows] == [0.75, 1.5, 2.25, 2.25, 3.0]
        sent = [(d.client, d.version, d.on_arrival) for d in windows[0].dispatches[4:] + windows[1].dispatches]
        assert sent[:4] == [(0, 0, True), (1, 0, True), (2, 1, False), (3, 1, True)]


def mean_staleness(sigma, rule, made=Clock, clients=4, cohort=0):
    rule = dataclasses.replace(rule, cohort=cohort)
    network, *rest = unicast((2.0,) * clients, (4.0,) * clients, 1000.0, 1000.0, rule, contention=False)
    one = made(dataclasses.replace(network, client_sigma=sigma), *rest)
    windows = [one.next_window() for _ in range(100)]
    return np.mean([window.index - 1 - a.version for window in windows for a in window.arrivals])


@pytest.mark.parametrize("made", [Clock, FaultyClock])
def test_staleness_at_sigma_0_is_that_of_a_tiny_sigma(made):
    """0 + 1 + 2 + 3 and then 3 at each arrival: 2.94 on average over 100 windows."""
    each = WindowRule("each_arrival", dispatch="on_arrival")
    assert mean_staleness(0.0, each, made) == 2.94
    for rule in (each, WindowRule("each_arrival"), WindowRule("k_arrivals", k=3, dispatch="on_arrival")):
        for cohort in (0, 3) if rule.close == "each_arrival" else (0,):
            exact, nearly = (mean_staleness(sigma, rule, made, 5, cohort) for sigma in (0.0, 1e-9))
            assert exact == pytest.approx(nearly, abs=0.06), rule


@pytest.mark.parametrize("rule,made", every_fifth(itertools.product(RULES, (Clock, FaultyClock))), ids=name)
@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**32), st.sampled_from(list(TRANSPORTS)))
def test_resume_among_ties_is_exact(rule, made, seed, transport):
    """Also where a window of length 0 comes next."""
    own, costs, rule = rounded(*fractions(seed, 5), rule)
    arguments = (own, rule, transport, seed)
    for many in (10**9, 0):
        with mock.patch.object(clock, "_MANY", many):
            one, windows = made(*arguments, costs), []
            for _ in range(14):
                windows.append(dataclasses.asdict(one.next_window()))
                state = json.loads(json.dumps(one.to_state(), allow_nan=False))
                again = made.from_state(*arguments, state)
                assert again.in_flight == one.in_flight
                one = again
            whole = made(*arguments, costs)
            assert windows == [dataclasses.asdict(whole.next_window()) for _ in range(14)]


# --- where things go wrong ---


def random_faults(seed, clients):
    """(faults, intervals, traces); client 0 is always there."""
    rng = np.random.default_rng(seed)
    chances = [0.3 if rng.random() < 0.5 else 0.0 for _ in range(3)]
    grid = [F(k, 10) for k in range(1, 60)]
    intervals, traces = {}, {}
    for client in range(1, clients):
        if rng.random() < 0.5:
            begin, end = sorted(rng.choice(len(grid), 2, replace=False).tolist())
            intervals[client] = [(F(0) if rng.random() < 0.5 else grid[begin], grid[end]), (grid[end] + 1, math.inf)]
        if rng.random() < 0.3:
            times = sorted(rng.choice(len(grid), 3, replace=False).tolist())
            traces[client] = [(grid[t], F(int(rng.integers(1, 6))), F(int(rng.integers(2, 9)))) for t in times]
    stays = [[floats(stay) for stay in intervals.get(client, [(0, math.inf)])] for client in range(clients)]
    up, down = (
        {i: Trace(floats(line[0] for line in own), [MB * float(line[k]) for line in own]) for i, own in traces.items()}
        for k in (1, 2)
    )
    faults = Faults(chances[0], 0.0, *chances[1:], presence=Presence(stays) if intervals else None, up=up, down=down)
    return faults, intervals, traces


@pytest.mark.parametrize("rule,transport", every_fifth(itertools.product((*RULES, *DEADLINES), TRANSPORTS)), ids=name)
@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**32), st.integers(3, 6), FEW)
def test_faulty_clock_does_what_exact_arithmetic_says(transport, rule, seed, clients, few):
    network, exact = fractions(seed, clients)
    own, costs, float_rule = rounded(network, exact, rule)
    faults, intervals, traces = random_faults(seed, clients)
    oracle = FaultyOracle(network, rule, transport, seed, exact, faults, intervals, traces, exact=True)
    with mock.patch.object(link, "_FEW", few):
        one = FaultyClock(own, float_rule, transport, seed, costs, faults)
        for _ in range(10):
            window = one.next_window()
            end, jobs, failed, copies, *_ = oracle.next_window()
            same(window, end, jobs)
            for got, ended in ((window.failures, failed), (window.repeats, copies)):
                ids = [(one.client, one.index) for one in got]
                assert sorted(ids) == sorted((job.client, job.index) for job in ended)
            whens = [float(job.failed_s) for job in failed]
            assert [f.ended_s for f in window.failures] == pytest.approx(whens, rel=1e-12)
            assert [f.client for f in window.failures] == [job.client for job in failed]
            assert [f.kind for f in window.failures] == [job.kind for job in failed]

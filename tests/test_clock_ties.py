"""Ties in the clock: on networks of simple fractions it does what exact arithmetic says; k arrivals close k."""

import dataclasses
import json
import math
import types
from fractions import Fraction as F
from unittest import mock

import numpy as np
import pytest
from clock_oracle import Oracle
from faults_oracle import FaultyOracle
from hypothesis import given, settings
from hypothesis import strategies as st
from test_clock_oracle import FEW

from prfl_jax.clock import TRANSPORTS, Clock, Costs, Faults, FaultyClock, Network, WindowRule, clock, link
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


def name(rule):
    return f"{rule.close}-{rule.dispatch}-{rule.first_waits_for_all}-{rule.k}-{rule.cohort}"


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


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("rule", RULES, ids=name)
@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32), st.integers(3, 7), FEW)
def test_clock_does_what_exact_arithmetic_says(transport, rule, seed, clients, few):
    network, exact = fractions(seed, clients)
    own, costs, float_rule = rounded(network, exact, rule)
    arguments = (own, float_rule, transport, seed)
    with mock.patch.object(link, "_FEW", few):
        ways = [*both_ways(arguments, costs), FaultyClock(*arguments, costs)]
        follows(Oracle(network, rule, transport, seed, exact, exact=True), ways, 12)

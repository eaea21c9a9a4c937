"""What holds on any network: conservation, order, exact resume, common random numbers."""

import dataclasses
import json
import statistics
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from clock_random import FEW, RULES, random_costs, random_network
from hypothesis import given, settings
from hypothesis import strategies as st

from prfl_jax.clock import TRANSPORTS, Clock, WindowRule, link
from prfl_jax.clock.draws import CLIENT_DOWN, CLIENT_UP, LogNormals, draw_idle


def setting(seed, clients, contention=True):
    rng = np.random.default_rng(seed)
    network = random_network(rng, clients, contention)
    costs = [random_costs(rng, clients) for _ in range(3)]
    return network, [dataclasses.replace(c, up_bytes=np.maximum(c.up_bytes, 50_000)) for c in costs]


def run(clock, costs, windows):
    """Changes the costs after windows 5 and 10."""
    got = []
    for number in range(clock.windows + 1, windows + 1):
        if number in (6, 11):
            clock.set_costs(costs[number // 5])
        got.append(clock.next_window())
    return got


def plain(windows):
    return [dataclasses.asdict(window) for window in windows]


any_clock = given(
    st.integers(0, 2**32), st.integers(1, 6), st.booleans(), st.sampled_from(RULES), st.sampled_from(list(TRANSPORTS))
)


def make(seed, clients, contention, rule, transport):
    rule = dataclasses.replace(rule, cohort=min(rule.cohort, clients))
    if rule.close == "k_arrivals" and rule.k > clients:
        rule = WindowRule("each_arrival", dispatch=rule.dispatch, cohort=rule.cohort)
    network, costs = setting(seed, clients, contention)
    return (network, rule, transport, seed), costs


@settings(deadline=None, max_examples=60)
@any_clock
def test_time_runs_forward_and_every_dispatch_arrives_once(seed, clients, contention, rule, transport):
    arguments, costs = make(seed, clients, contention, rule, transport)
    clock = Clock(*arguments, costs[0])
    windows = run(clock, costs, 15)
    flying = {}
    for before, window in zip([None, *windows], windows, strict=False):
        assert window.start_s == (0.0 if before is None else before.end_s) <= window.end_s
        dispatched = [d.time_s for d in window.dispatches]
        assert dispatched == sorted(dispatched)
        assert all(d.version == window.index - 1 for d in window.dispatches)
        arrived = [(a.arrived_s, a.client) for a in window.arrivals]
        assert arrived == sorted(arrived)
        for d in window.dispatches:
            assert d.on_arrival or d.time_s == window.start_s
            flying[d.client, d.index] = d
        for a in window.arrivals:
            assert a.arrived_s <= window.end_s and (a.arrived_s > window.start_s or a.dispatched_s == a.arrived_s)
            assert a.dispatched_s <= a.downloaded_s <= a.computed_s <= a.arrived_s
            d = flying.pop((a.client, a.index))
            assert (d.time_s, d.version) == (a.dispatched_s, a.version)
        assert all(waited >= 0 for waited in window.waiting_s) and len(window.waiting_s) == len(window.arrivals)
    waiting = {a.client for a in windows[-1].arrivals} - {client for client, _ in flying}
    assert tuple(sorted(client for client, _ in flying)) == clock.in_flight
    if clock.rule.cohort:
        assert len(clock.in_flight) <= clock.rule.cohort
    else:
        assert set(clock.in_flight) | waiting == set(range(clients))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 6), st.booleans(), st.sampled_from(list(TRANSPORTS)))
def test_bytes_are_conserved(seed, clients, contention, transport):
    """When everything has arrived, the counters hold exactly what was ordered: to the byte."""
    network, costs = setting(seed, clients, contention)
    clock = Clock(network, WindowRule("all"), transport, seed, costs[0])
    for number in range(4):
        window, now = clock.next_window(), costs[0]
        masks = int(now.mask_bytes.sum()) if number == 0 else 0
        assert window.bytes_up == now.up_bytes.sum()
        assert window.bytes_client_down == now.down_bytes.sum() + masks
        distinct = sum(now.down_bytes[now.group == group].max() for group in set(now.group.tolist()))
        values = {"unicast": now.down_bytes.sum(), "distinct": distinct}.get(transport, now.down_bytes.max())
        assert window.bytes_down == values + masks


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32), st.sampled_from(list(TRANSPORTS)), st.booleans())
def test_bytes_over_many_short_windows_add_up(seed, transport, contention):
    """Windows that cut every transfer in pieces count the same bytes as one that cuts none."""
    network, costs = setting(seed, 4, contention)
    steady = dataclasses.replace(network, server_sigma=0.0)
    whole = Clock(steady, WindowRule("all"), transport, seed, costs[0]).next_window()
    rule = WindowRule("fixed", dt_s=whole.end_s / 37, first_waits_for_all=False)
    clock = Clock(steady, rule, transport, seed, costs[0])
    # Nobody may come twice: only the dispatches at 0 s are made.
    clock._dispatch = _only_once(clock._dispatch)
    cut = [clock.next_window() for _ in range(38)]
    for name in ("bytes_down", "bytes_client_down", "bytes_up"):
        assert sum(getattr(window, name) for window in cut) == getattr(whole, name)
    assert sorted(a.client for window in cut for a in window.arrivals) == [0, 1, 2, 3]


def _only_once(dispatch):
    return lambda clients, now_s, on_arrival, log: dispatch(clients, now_s, on_arrival, log) if now_s == 0.0 else 0


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32), st.integers(1, 6), st.booleans(), st.sampled_from(RULES), st.sampled_from(list(TRANSPORTS)),
    st.integers(0, 14), FEW,
)  # fmt: skip
def test_resume_is_exact(seed, clients, contention, rule, transport, cut, few):
    arguments, costs = make(seed, clients, contention, rule, transport)
    with mock.patch.object(link, "_FEW", few):
        whole = plain(run(Clock(*arguments, costs[0]), costs, 15))
        clock = Clock(*arguments, costs[0])
        first = plain(run(clock, costs, cut))
        state = json.loads(json.dumps(clock.to_state(), allow_nan=False))
        resumed = Clock.from_state(*arguments, state)
        assert resumed.to_state() == clock.to_state()
        assert (resumed.time_s, resumed.windows, resumed.in_flight) == (clock.time_s, clock.windows, clock.in_flight)
        assert first + plain(run(resumed, costs, 15)) == whole


def test_same_seed_same_windows_and_another_seed_others():
    network, costs = setting(3, 5)
    runs = [plain(run(Clock(network, RULES[0], "delta", seed, costs[0]), costs, 15)) for seed in (7, 7, 8)]
    assert runs[0] == runs[1] != runs[2]


def test_the_kth_transfer_has_one_draw_under_every_rule():
    """Alone on the network, a round's length is compute + sizes / (speed x the k-th draws)."""
    network, costs = setting(11, 4, contention=False)
    network = dataclasses.replace(network, server_up=1e6, server_down=1e6, server_sigma=0.0)
    fixed = dataclasses.replace(
        costs[0], mask_bytes=np.zeros(4), down_bytes=np.full(4, 10**6), group=np.zeros(4, dtype=int)
    )
    down, up = LogNormals(5, CLIENT_DOWN, 0.3), LogNormals(5, CLIENT_UP, 0.3)
    for transport in TRANSPORTS:
        for rule in RULES:
            clock = Clock(network, rule, transport, 5, fixed)
            for window in (clock.next_window() for _ in range(8)):
                for a in window.arrivals:
                    i, k = a.client, a.index
                    upload = fixed.up_bytes[i] / (1e6 * network.client_up[i] * up.factor(i, k))
                    assert a.arrived_s - a.computed_s == pytest.approx(upload, rel=1e-9)
                    assert a.computed_s - a.downloaded_s == pytest.approx(fixed.compute_s[i], abs=1e-9)
                    # What an earlier client of the same version left in the buffer can only be there sooner.
                    download = 1.0 / (network.client_down[i] * down.factor(i, k))
                    assert a.downloaded_s - a.dispatched_s == pytest.approx(download, rel=1e-9)


def test_draws_are_keyed_lognormals():
    draws = LogNormals(1, CLIENT_DOWN, 0.3)
    values = [draws.factor(4, k) for k in range(600)]
    fresh = LogNormals(1, CLIENT_DOWN, 0.3)
    assert [fresh.factor(4, k) for k in (599, 0, 256, 255)] == [values[k] for k in (599, 0, 256, 255)]
    logs = np.log(values)
    assert abs(statistics.fmean(logs)) < 0.05 and abs(logs.std() - 0.3) < 0.03
    others = [LogNormals(2, CLIENT_DOWN, 0.3), LogNormals(1, CLIENT_UP, 0.3)]
    assert all(other.factor(4, 0) != values[0] for other in others) and fresh.factor(5, 0) != values[0]
    assert LogNormals(1, CLIENT_DOWN, 0.6).factor(4, 7) == pytest.approx(values[7] ** 2)
    assert LogNormals(-1, CLIENT_DOWN, 0.0).factor(0, 0) == 1.0
    LogNormals(-1, CLIENT_DOWN, 0.3).factor(0, 0)  # any integer is a seed


def test_a_cohort_is_drawn_uniformly_from_those_that_are_idle():
    busy = {0, 3, 4, 9}
    drawn = [draw_idle(7, number, 3, 12, busy) for number in range(4000)]
    assert drawn == [draw_idle(7, number, 3, 12, busy) for number in range(4000)]
    for cohort in drawn:
        assert cohort == sorted(set(cohort)) and len(cohort) == 3 and not busy & set(cohort)
    counts = np.bincount([client for cohort in drawn for client in cohort], minlength=12)
    idle = np.delete(counts, sorted(busy))
    assert idle.sum() == 12000 and abs(idle - 1500).max() < 4 * (1500 * 5 / 8) ** 0.5
    assert draw_idle(7, 1, 3, 12, busy) != draw_idle(8, 1, 3, 12, busy)
    # one idle client of very many is found too
    assert draw_idle(7, 0, 1, 1000, set(range(1000)) - {613}) == [613]
    assert draw_idle(7, 0, 5, 5, set()) == [0, 1, 2, 3, 4]


def test_a_cohort_is_always_full_and_changes():
    network, costs = setting(3, 20)
    for rule in (WindowRule("all", cohort=5), WindowRule("k_arrivals", k=2, dispatch="on_arrival", cohort=5)):
        windows = run(Clock(network, rule, "one_copy", 0, costs[0]), costs, 15)
        flying, seen = 0, set()
        for window in windows:
            at_start = [d for d in window.dispatches if not d.on_arrival]
            flying += len(at_start)
            assert flying == 5
            flying += sum(d.on_arrival for d in window.dispatches) - len(window.arrivals)
            seen |= {d.client for d in window.dispatches}
        assert len(seen) > 12  # 15 windows dispatch 75 or over 30 times


def test_no_room_of_the_clock_imports_jax():
    code = (
        "import sys, prfl_jax.clock, prfl_jax.density, prfl_jax.transport, prfl_jax.runtime.clock_only, "
        "prfl_jax.submodel.layers; print([m for m in sys.modules if m.split('.')[0] in ('jax', 'jaxlib', 'flax')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

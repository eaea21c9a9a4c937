"""FedFix's weights under every rule that closes windows, against NumPy from the clock's records alone.

Fraboni et al. 2023: d_i = p_i where the server waits for everybody, ceil(tau_i / dt) p_i in windows of fixed length,
(sum_j 1/tau_j) tau_i p_i where each arrival is a step of the server. What they have in common is that every client
moves the model by its p_i in the long run.
"""

import json

import numpy as np
import pytest
import tiny
from marked import every_third

from prfl_jax.clock.faults import LEFT

SIZES = np.array([0.4, 0.3, 0.2, 0.1])
EACH = dict(window__close="each_arrival", window__dispatch="on_arrival")
OTHERS = {
    "each_arrival": EACH,
    "each_arrival, window_end": dict(window__close="each_arrival"),
    "k_arrivals": dict(window__close="k_arrivals", window__k=2, window__dispatch="on_arrival"),
    "k_arrivals, window_end": dict(window__close="k_arrivals", window__k=3),
    "everybody by number": dict(window__close="k_arrivals", window__k=4),
    "release": dict(window__close="release", window__release_min_s=2.0),
}


def planned(count, **changes):
    """(p, planned windows); no model is trained."""
    simulation = tiny.simulation("fedfix", **changes)
    planner = simulation.new_planner()
    planner._p = SIZES
    return [planner.take() for _ in range(count)]


def coefficients(item):
    """c_k of each arrival, in order."""
    return [float(r.coefficient[slot]) for r in item.rows for slot in r.arrive[: int(r.arrive_count)]]


def taking_part(client, windows):
    """Whether the client has a round in the last window and has not left in it."""
    sent = [d for w in windows for d in w.dispatches if d.client == client]
    ended = {a.index: w.index for w in windows for a in w.arrivals if a.client == client}
    failed = {f.index: (w.index, f.kind) for w in windows for f in w.failures if f.client == client}
    if not sent or ended.get(sent[-1].index, windows[-1].index) < windows[-1].index:
        return False
    return failed.get(sent[-1].index, (windows[-1].index, ""))[0] == windows[-1].index and not (
        failed.get(sent[-1].index, (0, ""))[1] == LEFT
    )


def asynchronous(items, waits=lambda n: False):
    """The weights of each window, from first principles: every mean is taken anew from all windows so far."""
    out = []
    for n in range(1, len(items) + 1):
        so_far = [item.window for item in items[:n]]
        if waits(n):
            out.append([SIZES[a.client] for a in so_far[-1].arrivals])
            continue
        counted = [w for w in so_far if not waits(w.index)]
        cycles = [[] for _ in SIZES]
        for w in counted:
            for arrival, waiting in zip(w.arrivals, w.waiting_s, strict=True):
                cycles[arrival.client].append(arrival.arrived_s - arrival.dispatched_s + waiting)
        tau = np.array([np.mean(own) if own else np.inf for own in cycles])
        there = [taking_part(client, so_far) for client in range(len(SIZES))]
        rate = np.sum(1.0 / tau[there])
        k = np.mean([len(w.arrivals) for w in counted])
        out.append([rate * tau[a.client] * SIZES[a.client] / k for a in so_far[-1].arrivals])
    return out


@pytest.mark.parametrize("name", OTHERS)
def test_weights_are_the_authors_where_arrivals_close_windows(name):
    items = planned(60, **OTHERS[name])
    waits = (lambda n: n <= 2) if name == "release" else (lambda n: False)
    for item, want in zip(items, asynchronous(items, waits), strict=True):
        np.testing.assert_allclose(coefficients(item), want, rtol=1e-6)


def test_each_arrival_is_the_formula_of_the_paper():
    """Without waiting and with K = 1: (sum_j 1/tau_j) tau_i p_i of those that have arrived."""
    tau = [[] for _ in SIZES]
    for item in planned(80, **EACH):
        for arrival, got in zip(item.window.arrivals, coefficients(item), strict=True):
            tau[arrival.client].append(arrival.arrived_s - arrival.dispatched_s)
            mean = np.array([np.mean(own) for own in tau if own])
            want = np.sum(1.0 / mean) * np.mean(tau[arrival.client]) * SIZES[arrival.client]
            assert got == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("name", every_third((name,) for name in (*OTHERS, "fixed", "all")))
def test_in_the_long_run_each_client_contributes_its_share(name):
    changes = {"fixed": dict(window__close="fixed"), "all": dict(window__close="all")}.get(name) or OTHERS[name]
    moved = np.zeros(len(SIZES))
    items = planned(900, clients__sigma=0.0, server__sigma=0.0, server__contention=False, **changes)
    for item in items[100:]:
        for arrival, c in zip(item.window.arrivals, coefficients(item), strict=True):
            moved[arrival.client] += c
    np.testing.assert_allclose(moved / 800, SIZES, rtol=0.06)  # so much of the model's way in a step of the server


@pytest.mark.parametrize("close", ["all", "deadline"])
def test_where_everybody_is_waited_for_the_weights_are_p(close):
    for item in planned(12, window__close=close, window__deadline_share=0.5):
        want = [SIZES[arrival.client] for arrival in item.window.arrivals]
        np.testing.assert_allclose(coefficients(item), want, rtol=1e-6)


@pytest.mark.parametrize("first_waits", [False, True])
def test_windows_of_fixed_length_count_the_windows_of_a_round(first_waits):
    rounds = [[] for _ in SIZES]
    for item in planned(40, window__close="fixed", window__first_waits_for_all=first_waits):
        for arrival in item.window.arrivals:
            rounds[arrival.client].append(arrival.arrived_s - arrival.dispatched_s)
        turns = [np.ceil(np.mean(rounds[a.client]) / 3.0) for a in item.window.arrivals]
        if first_waits and item.window.index == 1:
            turns = [1.0] * 4
        want = [turn * SIZES[a.client] for turn, a in zip(turns, item.window.arrivals, strict=True)]
        np.testing.assert_allclose(coefficients(item), want, rtol=1e-6)


def test_who_has_left_is_summed_no_more():
    """Two of four leave at 30 s: by then the others' arrivals are all that comes."""
    items = planned(120, faults__leave_s=(1e9, 1e9, 30.0, 30.0), clients__sigma=0.0, **EACH)
    for item, want in zip(items, asynchronous(items), strict=True):
        np.testing.assert_allclose(coefficients(item), want, rtol=1e-6)
    late = [item for item in items if item.window.start_s > 60]
    assert len(late) > 30
    tau = {a.client: a.arrived_s - a.dispatched_s for item in late for a in item.window.arrivals}
    assert tau.keys() == {0, 1}
    moved = np.zeros(4)
    for item in late:
        moved[item.window.arrivals[0].client] += coefficients(item)[0] / len(late)
    np.testing.assert_allclose(moved, [0.4, 0.3, 0, 0], rtol=0.15)


@pytest.mark.parametrize("name", ["each_arrival", "k_arrivals, window_end", "release"])
def test_a_planner_goes_on_where_it_was(name):
    simulation = tiny.simulation("fedfix", **OTHERS[name])
    planner = simulation.new_planner()
    for _ in range(7):
        planner.take()
    again = simulation.restored_planner(json.loads(json.dumps(planner.to_state())))
    for _ in range(10):
        assert coefficients(planner.take()) == coefficients(again.take())


def test_a_round_that_takes_no_time_has_a_weight():
    """Where rounding makes a round 0 s long nothing is divided by 0."""
    speeds = dict(clients__up_mb_s=(1e9,), clients__down_mb_s=(1e9,), model__size_mb=1e-6)
    for item in planned(5, window__close="k_arrivals", window__k=4, server__contention=False, **speeds):
        assert np.isfinite(coefficients(item)).all()

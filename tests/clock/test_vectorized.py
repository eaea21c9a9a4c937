"""Windows as arrays (`clock/vectorized.py`) equal windows by events, to the bit, also where it changes in between."""

import dataclasses
import itertools
import json
from unittest import mock

import numpy as np
import pytest
from clock_random import random_costs
from hypothesis import given, settings
from hypothesis import strategies as st
from marked import every_fifth

from prfl_jax.clock import TRANSPORTS, Clock, Costs, Network, WindowRule, clock
from prfl_jax.clock.draws import CLIENT_UP, LogNormals

RULES = (
    WindowRule("fixed", dt_s=1.5),
    WindowRule("fixed", dt_s=0.8, first_waits_for_all=False),
    WindowRule("all"),
    WindowRule("k_arrivals", k=3),
    WindowRule("each_arrival"),
    WindowRule("release", release_min_s=0.3),
    WindowRule("all", cohort=3),
    WindowRule("fixed", dt_s=0.5, first_waits_for_all=False, cohort=2),
)
NEVER, ALWAYS = 10**9, 0  # clients from which arrays are used
SERVERS = (500.0, 30.0, 12.0)  # MB/s: never in the way, sometimes, often


def setting(seed, clients, server, contention):
    rng = np.random.default_rng(seed)
    network = Network(
        tuple(rng.uniform(0.3, 5, clients)), tuple(rng.uniform(1, 8, clients)), server, server / 1.5,
        client_sigma=0.3, server_sigma=0.2, contention=contention,
    )  # fmt: skip
    return network, [random_costs(rng, clients) for _ in range(3)]


def run(arguments, costs, many, cut=None):
    """15 windows with new costs after 5 and 10, and how many of them were arrays; saved and restored after `cut`."""
    with mock.patch.object(clock, "_MANY", many):
        it, windows, quiet = Clock(*arguments, costs[0]), [], []
        for number in range(1, 16):
            if number in (6, 11):
                it.set_costs(costs[number // 5])
            windows.append(dataclasses.asdict(it.next_window()))
            quiet.append(it._vectorized is not None)
            if number == cut:
                it = Clock.from_state(*arguments, json.loads(json.dumps(it.to_state(), allow_nan=False)))
        return windows, quiet


@pytest.mark.parametrize(
    "rule,transport",
    every_fifth(itertools.product(RULES, TRANSPORTS)),
    ids=lambda v: f"{v.close}-{v.first_waits_for_all}-{v.cohort}" if isinstance(v, WindowRule) else None,
)
@settings(deadline=None, max_examples=12)
@given(st.integers(0, 2**32), st.integers(3, 8), st.sampled_from(SERVERS), st.booleans(), st.integers(1, 14))
def test_arrays_equal_events(transport, rule, seed, clients, server, contention, cut):
    network, costs = setting(seed, clients, server, contention)
    arguments = (network, rule, transport, seed)
    by_events, none = run(arguments, costs, NEVER)
    assert not any(none)
    assert run(arguments, costs, ALWAYS)[0] == by_events
    assert run(arguments, costs, ALWAYS, cut)[0] == by_events


def test_arrays_are_used_where_nobody_waits_and_come_back():
    used = {}
    for server in SERVERS:
        quiet = []
        for seed in range(40):
            network, costs = setting(seed, 6, server, True)
            quiet.append(run((network, RULES[0], "delta", seed), costs, ALWAYS)[1])
        changes = sum(before != after for one in quiet for before, after in zip(one, one[1:], strict=False))
        used[server] = np.mean(quiet), changes
    assert used[500.0] == (1.0, 0)
    assert 0.2 < used[30.0][0] < 1.0 and used[30.0][1] > 20
    assert used[12.0][0] < used[30.0][0]


def test_many_clients_take_the_arrays_and_few_do_not():
    def made(clients, rule):
        flat = np.full(clients, 1_000_000)
        costs = Costs(flat, 0 * flat, flat, np.zeros(clients), np.full(clients, 100))
        return Clock(Network((1.0,) * clients, (4.0,) * clients, 1e3, 1e3), rule, "one_copy", 0, costs)._vectorized

    assert made(63, WindowRule()) is None and made(64, WindowRule()) is not None
    assert made(64, WindowRule(dispatch="on_arrival")) is None


def test_draws_of_many_are_the_draws_of_each():
    one, many = (LogNormals(3, CLIENT_UP, 0.3) for _ in range(2))
    rng = np.random.default_rng(0)
    for _ in range(30):
        sources = rng.permutation(50)[:20]
        ks = rng.choice([0, 3, 7, 8, 70, 255, 256, 300, 600], 20)
        want = [one.factor(int(source), int(k)) for source, k in zip(sources, ks, strict=True)]
        assert many.factors(sources, ks).tolist() == want
    assert LogNormals(3, CLIENT_UP, 0.0).factors(np.arange(3), np.arange(3)).tolist() == [1.0] * 3

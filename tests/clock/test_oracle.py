"""The clock against the slow oracle, on random networks, rules, transports and costs."""

import dataclasses
import itertools
from unittest import mock

import numpy as np
import pytest
from clock_oracle import Oracle
from clock_random import FEW, RULES, random_costs, random_network
from hypothesis import given, settings
from hypothesis import strategies as st
from marked import every_third

from prfl_jax.clock import TRANSPORTS, Clock, WindowRule, link


def compare(clock, oracle, windows, change):
    for number in range(1, windows + 1):
        if number in change:
            clock.set_costs(change[number])
            oracle.set_costs(change[number])
        window = clock.next_window()
        end, jobs, sent, received, up = oracle.next_window()
        assert window.end_s == pytest.approx(end, rel=1e-9, abs=1e-9)
        assert [(a.client, a.index, a.version) for a in window.arrivals] == [
            (job.client, job.index, job.version) for job in jobs
        ]
        for a, job in zip(window.arrivals, jobs, strict=True):
            assert (a.dispatched_s, a.downloaded_s, a.computed_s, a.arrived_s) == pytest.approx(
                (job.dispatched, job.downloaded, job.computed, job.arrived), rel=1e-9, abs=1e-8
            )
        slack = 4 * clock.network.num_clients  # each counter holds whole bytes of each transfer
        assert abs(window.bytes_down - sent) <= slack
        assert abs(window.bytes_client_down - received) <= slack
        assert abs(window.bytes_up - up) <= slack


@pytest.mark.parametrize(
    "rule,transport",
    every_third(itertools.product(RULES, TRANSPORTS)),
    ids=lambda v: f"{v.close}-{v.dispatch}-{v.first_waits_for_all}-{v.cohort}" if isinstance(v, WindowRule) else None,
)
@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**32), st.integers(3, 7), st.booleans(), FEW)
def test_same_as_oracle(transport, rule, seed, clients, contention, few):
    rng = np.random.default_rng(seed)
    network = random_network(rng, clients, contention)
    costs = random_costs(rng, clients)
    if rule.dispatch == "on_arrival":  # a round of 0 s would never end
        costs = dataclasses.replace(costs, up_bytes=np.maximum(costs.up_bytes, 50_000))
    change = {4: random_costs(rng, clients), 8: random_costs(rng, clients)}
    if rule.dispatch == "on_arrival":
        change = {n: dataclasses.replace(c, up_bytes=np.maximum(c.up_bytes, 50_000)) for n, c in change.items()}
    clock = Clock(network, rule, transport, seed, costs)
    oracle = Oracle(network, rule, transport, seed, costs)
    with mock.patch.object(link, "_FEW", few):
        compare(clock, oracle, 12, change)

"""Clients on several devices: the same arrivals, nearly the same weights, and where each one lies."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny
from paths import HELPERS, ROOT

from prfl_jax.aggregate import AggregationWeights
from prfl_jax.engine.placement import Placement
from prfl_jax.engine.plan import LocalRound, make_row, stack_rows
from prfl_jax.system import accelerator
from prfl_jax.system.errors import UserError

# each kernel and kind of sub-model, levels that change in every window, a robust rule, and optimisers of the server: of
# sums of changes under masks and of means, what clients keep, what is put back into models that were sent, and a mask
# that follows from gradients
RUN = [
    *("prfl", "fedbuff", "heterofl_windowed", "fedrolex", "fedavg", "prfl_norecover", "fedyogi"),
    *("scaffold", "fedasyn", "asyn_fl", "prunefl"),
]


@pytest.fixture(scope="module")
def told():
    """What a process with eight virtual CPU devices says of runs there and on one of them."""
    paths = os.pathsep.join([str(ROOT), str(HELPERS)])
    done = subprocess.run(
        [sys.executable, str(HELPERS / "devices_worker.py"), *RUN],
        env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.processes
@pytest.mark.parametrize("strategy", RUN)
def test_eight_devices_equal_one(told, strategy):
    assert told["devices"] == 8
    seen = told[strategy]
    assert seen["used"] == [1, 8, 3] and seen["windows"] == 20
    assert seen["windows_equal"] and seen["same_hash"]
    assert seen["weights_apart"] <= 1e-5 and seen["losses_apart"] <= 1e-5
    narrow = strategy == "heterofl_windowed"
    assert seen["widths"] == 3 * [[0.5] if narrow else []] and (seen["least_pct"] <= 50 or not narrow)


@pytest.mark.processes
@pytest.mark.parametrize("strategy", RUN)
def test_a_run_goes_on_on_another_number_of_devices(told, strategy):
    assert told[strategy]["resumed_windows"] == 20
    assert told[strategy]["resumed_apart"] <= 1e-5


def test_each_client_lies_in_one_slot_and_comes_back():
    for clients, count in ((10, 8), (10, 3), (7, 1), (4, 4), (1000, 16)):
        placement = Placement(clients, tuple(range(count)))
        slots = [placement.slot(c) for c in range(clients)]
        assert len(set(slots)) == clients and max(slots) < count * placement.slots
        held = np.bincount([s // placement.slots for s in slots], minlength=count)
        assert held.max() - held.min() <= 1
        stack = np.arange(2 * clients).reshape(clients, 2)
        np.testing.assert_array_equal(placement.to_clients(placement.to_slots(stack)), stack)


def test_a_plan_is_split_without_loss():
    placement = Placement(5, tuple("ab"))  # a has clients 0, 2, 4, b has 1, 3
    row = make_row(
        5, [(4, 50), (1, 20), (0, 10)],
        [LocalRound(3, 3, 7, 0.1, 0.5, 40), LocalRound(4, 4, 8, 0.2, 0.6, 50), LocalRound(1, 1, 9, 0.3, 0.7, 20)],
        AggregationWeights(np.array([0.1, 0.2, 0.3, 0.4, 0.0])),
        [LocalRound(2, 2, 5, 0.4, 0.0, 10), LocalRound(3, 3, 7, 0.1, 0.0, 40)],
    )  # fmt: skip
    whole = stack_rows([row], 2)
    split = placement.split_plan(whole)
    assert split.dispatch[0].tolist() == [2, 0, 3, 0, 3, 3] and split.dispatch_count.tolist() == [[2, 1], [0, 0]]
    assert split.arrive[0].tolist() == [2, 3, 3, 1, 0, 3] and split.arrive_count.tolist() == [[1, 2], [0, 0]]
    assert split.percent[0].tolist() == [10, 100, 50, 20, 100, 0]
    assert split.weights[0].tolist() == pytest.approx([0.1, 0.3, 0.0, 0.2, 0.4, 0.0])
    assert split.train[0].tolist() == [1, 3, 3, 1, 3, 3] and split.train_count.tolist() == [[1, 1], [0, 0]]
    # by slot: clients 0, 2, 4 and 1, 3
    assert split.count[0].tolist() == [0, 5, 8, 9, 7, 0] and split.density_pct[0].tolist() == [100, 10, 50, 20, 40, 0]
    assert split.client[0].tolist() == [0, 2, 4, 1, 3, 0]
    assert split.lr[0].tolist() == pytest.approx([0, 0.4, 0.2, 0.3, 0.1, 0])
    assert split.coefficient[0].tolist() == pytest.approx([0, 0, 0.6, 0.7, 0.5, 0])
    losses = np.array([[4.0, 0, 0, 3.0, 1.0, 0], [0.0] * 6])
    assert placement.by_arrival(losses, whole.arrive)[0, :3].tolist() == [3.0, 4.0, 1.0]


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(UserError, match=r"config.engine.devices=99: allowed is at most 1"):
        tiny.simulation("fedavg", engine__devices=99)
    assert Placement.of(3).count == min(3, jax.device_count())


def test_cores_are_devices_where_every_window_has_all_clients():
    for backend, everyone, expected in (("cpu", True, 2), ("cpu", False, 1), ("gpu", True, 2), ("gpu", False, 2)):
        with accelerator.compiling_for(accelerator.Target(backend, (object(), object()), None)):
            assert Placement.of(5, everyone=everyone).count == expected
            assert Placement.of(5, 2, everyone=everyone).count == 2  # what the user asks for counts

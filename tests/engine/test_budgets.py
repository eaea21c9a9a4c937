"""Counted quantities: what must not grow unseen. Times are for benchmarks; these are the same on every machine.

A test here fails when a number grows. If the growth is wanted, say in the commit what it buys, and raise the number.
"""

from __future__ import annotations

import json
import subprocess
import sys
from unittest import mock

import jax
import numpy as np
import pytest
import tiny

from prfl_jax.config.defaults import default_config
from prfl_jax.engine.engine import Engine
from prfl_jax.engine.memory import state_bytes
from prfl_jax.runtime.clock_only import run_clock
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.strategies.table import use
from prfl_jax.system import multi_process


def test_device_calls_and_transfers_of_a_chunk():
    """A chunk is one call of one executable; its plan goes to the device, its losses come back, nothing else."""
    simulation = tiny.simulation("prfl", engine__chunk_windows=3, rounds=12, density__interval=6, eval_every_s=1e4)
    experiment = Experiment(simulation.config, simulation)
    plans, fetched, calls = [], [], []
    make = simulation.device_plan
    simulation.device_plan = lambda plan: plans.append(sum(leaf.nbytes for leaf in plan)) or make(plan)
    executable = simulation.executable

    def counted(*args):
        chunk = executable(*args)

        def call(*args):
            calls.append(1)
            return chunk(*args)

        call.memory_analysis = chunk.memory_analysis
        return call

    simulation.executable = counted

    def fetch(array):
        fetched.append(array.nbytes)
        return np.asarray(array)

    with mock.patch.object(multi_process, "fetch", fetch):
        ran = tiny.run_experiment(experiment)
    chunks = len(calls)
    assert len(plans) <= chunks + 1 and len(fetched) == chunks  # one plan more, to compile with
    assert chunks <= 4 + 2  # twelve windows in threes, and an interval's end and the grid cut two of them
    rows, clients = 64, 4
    # L rows of twelve lists of numbers, one of booleans, and seven scalars
    assert max(plans) <= rows * (12 * 4 * clients + clients + 3 * 4 + 1 + 3 * 4)
    assert max(fetched) <= rows * clients * 4
    assert len(ran.of("window")) == 12


PROGRAMS = """
import json, sys, jax
sys.path.insert(0, "tests/helpers")
seen = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, *_, **__: seen.append(name) if name.endswith("jaxpr_to_mlir_module_duration") else None
)
import tiny
from prfl_jax.system.environment import compiled_for
from prfl_jax.runtime.experiment import Experiment
compiled_for()  # a program of the process, which tells what instructions XLA uses; not of a run
counts = {}
for method in ("prfl", "fedavg"):
    experiment = Experiment(tiny.config(method, rounds=12, engine__chunk_windows=2))
    counts[method] = []
    for _ in range(2):
        before = len(seen)
        ran = tiny.Ran(experiment, experiment.run(tiny.tempfile.mkdtemp(), progress=False))
        counts[method].append(len(seen) - before)
print(json.dumps(counts))
"""


@pytest.mark.processes
def test_compilations_of_a_run():
    """Few programs, however many windows, generations and evaluations; a second run of the same object needs none."""
    done = subprocess.run([sys.executable, "-c", PROGRAMS], capture_output=True, text=True, check=True)
    counts = json.loads(done.stdout.splitlines()[-1])
    first, again = zip(*counts.values(), strict=True)
    assert first[0] <= 24 and first[1] <= 6  # the second method finds the small ones made
    assert max(again) == 0


@pytest.mark.parametrize(("method", "models"), [("prfl", 2), ("prfl_nobuff", 2), ("fedavg", 1), ("fedasyn", 1)])
def test_state_of_a_client(method, models):
    """So many models, and their masks in bits where there are any: not a byte more."""

    def count(clients):
        config = tiny.config(method, clients__number=clients, clients__up_mb_s=(1.0,), clients__down_mb_s=(1.0,))
        simulation = Experiment(config).simulation
        return simulation, sum(state_bytes(jax.eval_shape(simulation.engine.init_state, simulation.init_key)).values())

    simulation, five = count(5)
    _, nine = count(9)
    layout = simulation.method.layout
    weights = sum(int(np.prod(shape)) for shape in layout.shapes)
    bits = sum(-(-int(np.prod(layout.shapes[i])) // 8) for i in layout.prunable)
    assert (nine - five) / 4 == models * (4 * weights + bits)


@pytest.mark.parametrize(("method", "most"), [("fedasyn", 2.3), ("fedasync", 3.1), ("prfl", 2.6), ("fedavg", 2.2)])
def test_events_of_an_arrival(method, most):
    """The clock handles two or three events for each arrival, whatever the number of clients."""
    for clients in (10, 300):
        config = use(default_config(), method)
        config.clients.number = clients
        config.server.up_mb_s, config.server.down_mb_s = 2.0 * clients, 10.0 * clients
        done = run_clock(config, 60 if clients == 10 else 8)
        arrivals = sum(done["updates"]) + sum(done["in_flight"])
        assert done["events"] <= most * arrivals, done["events"] / arrivals


def test_one_engine_serves_every_chunk():
    """An engine is built once; no run builds another."""
    with mock.patch.object(Engine, "__init__", autospec=True, side_effect=Engine.__init__) as built:
        tiny.run_experiment(Experiment(tiny.config("prfl", rounds=6)))
    assert built.call_count == 1

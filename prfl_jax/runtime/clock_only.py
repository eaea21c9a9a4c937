"""Runs the clock of a config without training: windows, densities, bytes (`scripts/clock.py`)."""

from __future__ import annotations

import contextlib
import gc
import itertools
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from prfl_jax.clock import KINDS, Clock, Costs, Window, clock_from_config, faults_on
from prfl_jax.density import DensityPolicy, RunningDensities, make_density
from prfl_jax.runtime.first_stage import first_stage
from prfl_jax.runtime.round_costs import round_costs
from prfl_jax.submodel.size import ModelSize
from prfl_jax.submodel.size_from_config import model_size_from_config
from prfl_jax.system.errors import NobodyLeft


def clock_alone(config: Any, size: ModelSize | None = None) -> tuple[Clock, DensityPolicy, Iterator[Window]]:
    """The clock of a config, its density policy, and the windows one after another, without end.

    Densities follow from round times; a window is given out after the decision that follows it.

    Args:
      config: a whole config.
      size: of the model; None: from the table of built-in models.

    Raises:
      UserError: a value that is not allowed.
    """
    size = size or model_size_from_config(config)
    policy = make_density(config.density, config.clients.number, seed=config.seed)

    def costs() -> Costs:
        return round_costs(config, size, policy.density_pct)

    clock = clock_from_config(config, costs())

    def coming() -> Iterator[Window]:
        running = RunningDensities()
        while True:
            density_pct = policy.density_pct
            window = clock.next_window()
            policy.observe(window.arrivals, running.take(window, density_pct))
            if policy.decides_after(window.index):
                policy.decide()
                clock.set_costs(costs())  # pruned anew: another generation of masks, even at equal densities
            yield window

    return clock, policy, coming()


def _until_all_left(coming: Iterator[Window], clock: Clock, horizon_s: float | None) -> Iterator[Window]:
    """The windows; with a horizon they end with the last that closes where all clients leave for good."""
    try:
        yield from coming
    except NobodyLeft:
        if horizon_s is None or not clock.windows:
            raise


def run_clock(config: Any, windows: int, size: ModelSize | None = None) -> dict[str, Any]:
    """Runs the clock of a config for a number of windows.

    Densities follow from times only: without accuracies no client recovers and the stop rule
    never fires.

    Args:
      config: a whole config.
      windows: at least 1.
      size: of the model; None: from the table of built-in models.

    Returns:
      Plain values: `seed`, `windows`, `simulated_s`, `first_window_s`, per client `updates` (arrivals), `in_flight`
      (0 or 1 at the end), `waiting_s`, `staleness_mean` (null without arrivals) and `density`; `bytes_down` (sent by
      the server), `bytes_client_down` (received by clients), `bytes_up` (received by the server),
      `events`, `host_s`, `note`. Staleness is that of an update when it arrives, n - 1 - version. With faults also
      `faults`: of each kind, how many each client had.

    Raises:
      UserError: a value that is not allowed.
    """
    with _no_collector():
        return _run_clock(config, windows, size)


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """Without Python's search for reference cycles: the clock makes none, and its many objects are costly to search."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _run_clock(config: Any, windows: int, size: ModelSize | None) -> dict[str, Any]:
    begin = time.perf_counter()
    size = size or model_size_from_config(config)
    stage = first_stage(config, size)
    clients = config.clients.number
    updates, staleness = np.zeros(clients, dtype=np.int64), np.zeros(clients, dtype=np.int64)
    waiting = np.zeros(clients)
    faults = {kind: np.zeros(clients, dtype=np.int64) for kind in KINDS}
    down = received = up = 0
    first_window_s = 0.0
    clock, policy, coming = clock_alone(config, size)
    for window in itertools.islice(_until_all_left(coming, clock, config.horizon_s), windows):
        number = window.index
        if number == 1:
            first_window_s = window.end_s
        for arrival, waited in zip(window.arrivals, window.waiting_s, strict=True):
            updates[arrival.client] += 1
            staleness[arrival.client] += number - 1 - arrival.version
            waiting[arrival.client] += waited
        for kind, client in window.faults:
            faults[kind][client] += 1
        down, received, up = down + window.bytes_down, received + window.bytes_client_down, up + window.bytes_up
    flying = set(clock.in_flight)
    counted = {"faults": {kind: counts.tolist() for kind, counts in faults.items()}} if faults_on(config) else {}
    return {
        "seed": config.seed,
        "windows": clock.windows,
        "simulated_s": clock.time_s,
        "first_window_s": first_window_s,
        "updates": updates.tolist(),
        "in_flight": [int(client in flying) for client in range(clients)],
        "waiting_s": waiting.tolist(),
        "staleness_mean": [
            float(total / count) if count else None for total, count in zip(staleness, updates, strict=True)
        ],
        "density": (policy.density_pct / 100.0).tolist(),
        "bytes_down": down,
        "bytes_client_down": received,
        "bytes_up": up,
        "events": clock.events,
        **counted,
        "host_s": time.perf_counter() - begin,
        "note": "no training: densities follow from round times only (recovery and the stop rule need accuracies), "
        "and computing takes a sub-model's overall density of the FLOP, where training takes each layer's own"
        + (f"; a first stage is not in it: {stage.text}" if stage.rounds else ""),
    }

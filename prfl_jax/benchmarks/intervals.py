"""The suite `intervals` times what a round costs the host beside training, by how often densities are decided.

FedMP's bandit decides after every window, and the clock cannot plan past a decision. It is compared with the same
bandit asked seldom, and with the same method at density 1, which decides nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from prfl_jax import strategies
from prfl_jax.benchmarks.timing import against, spread
from prfl_jax.config.defaults import default_config
from prfl_jax.data.dataset import Dataset
from prfl_jax.density.bandit import BanditDensity
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.runtime.loop import Loop
from prfl_jax.runtime.simulation import Simulation
from prfl_jax.runtime.workdir import Scratch
from prfl_jax.system.host_timer import HostTimer
from prfl_jax.system.jax_settings import fixed
from prfl_jax.system.signals import InterruptGuard

# by size of the suite: numbers of clients; windows between two decisions of the bandit that is asked seldom
SIZES = {"full": ((10, 100, 1000), 50), "small": ((10,), 2)}
MEASURED = 2  # so many times as many windows are measured, after as many once that are not
SEED, CLASSES, SAMPLES = 0, 4, 2  # samples of a client
PURPOSES = {  # of `HostTimer`, and what the table calls them
    "plan": "planning", "decide": "deciding", "prune": "pruning", "checkpoint": "state", "steady": "call",
}  # fmt: skip
METHOD = (
    "FedMP on a network of 8 hidden units; clients have two random samples and train one step a round, and every round "
    "waits for all of them. Per round, in CPU s of the process's main thread, so that other work on the machine counts "
    "little: plan: the clock, and the plan for the device; decide: the density policy; prune: costs of the new "
    "densities; checkpoint: the host's part of a checkpoint, kept for a signal before each device call; steady: making "
    "the call and reading its results; rest: records and progress. median, runs: all of these. ratio, more_s: divided "
    "by, and less, that of the bandit that is asked seldom in the same turn. training_s: CPU s of all other threads; "
    "wall_s: real time. The ways take turns, every second turn in reverse."
)


class Tiny(nn.Module):
    """8 x 8 pixels to eight hidden units to logits."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Dense(8)(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.classes)(x)


def random_images(folder: str) -> Dataset:
    """Random images and labels for the largest number of clients; nothing is read from `folder`."""
    rng, train = np.random.default_rng(SEED), SAMPLES * max(SIZES["full"][0])
    x = rng.integers(0, 256, (train + CLASSES, 8, 8), np.uint8)
    y = np.arange(len(x)) % CLASSES
    return Dataset("random", x[:train], y[:train], x[train:], y[train:], CLASSES)


class SeldomBandit(BanditDensity):
    """FedMP's bandit, asked after every `density.interval` windows."""

    def decides_after(self, window: int) -> bool:
        """After windows I, 2I, ..."""
        return window % self._interval == 0 and super().decides_after(window)


WAYS = {"after every window": "bandit", "seldom": f"{__name__}:{SeldomBandit.__name__}", "never": "full"}


def config_of(clients: int, density: str, interval: int) -> Any:
    """Windows of all clients, at most `interval` of them in a device call; evaluated and saved at its ends alone."""
    c = strategies.use(default_config(), "fedmp")
    c.seed, c.rounds, c.eval_every_s = SEED, (1 + MEASURED) * interval, 1e9
    c.data.name, c.data.partition, c.data.holdout_fraction = f"{__name__}:{random_images.__name__}", "iid", 0.0
    c.data.train_limit = SAMPLES * clients
    c.model.name, c.model.size_mb = f"{__name__}:{Tiny.__name__}", 26.4
    c.clients.number = clients
    c.server.up_mb_s, c.server.down_mb_s = 2.0 * clients, 10.0 * clients  # a client's share does not depend on them
    c.local.steps, c.local.batch_size = 1, SAMPLES
    c.density.name, c.density.interval = density, interval
    c.engine.clients, c.engine.chunk_windows, c.checkpoint.every_s = "map", interval, 1e9
    return c


class ThreadTimer(HostTimer):
    """Also counts CPU seconds of the thread that it is used in.

    Attributes:
      cpu: purpose -> s.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cpu = dict.fromkeys(PURPOSES, 0.0)

    @contextmanager
    def spent(self, purpose: str) -> Iterator[None]:
        """As `HostTimer`."""
        begin = time.thread_time()
        try:
            with super().spent(purpose):
                yield
        finally:
            self.cpu[purpose] = self.cpu.get(purpose, 0.0) + time.thread_time() - begin


@fixed()
def measure(simulation: Simulation) -> dict[str, float]:
    """Runs a simulation; returns s of a window after the first `density.interval`: by purpose, `rest`, and as a whole.

    `host` is CPU time of this thread, `training` that of the others, `wall` real time.
    """
    first, last = simulation.config.density.interval, simulation.config.rounds
    timer, marks = ThreadTimer(), list[dict[str, float]]()

    def watch(record: dict[str, Any]) -> None:
        if record["kind"] == "window" and record["window"] in (first, last):
            own, everything = time.thread_time(), time.process_time()
            marks.append({**timer.cpu, "host": own, "training": everything - own, "wall": time.perf_counter()})

    with Scratch() as folder:
        loop = Loop(simulation, folder, InterruptGuard(), progress=False, watch=watch)
        loop.active.time = timer
        loop.run()
    begin, end = marks
    found = {name: (end[name] - before) / (last - first) for name, before in begin.items()}
    return {**found, "rest": found["host"] - sum(found[purpose] for purpose in PURPOSES)}


def rows(size: str, repeats: int) -> Iterator[dict[str, Any]]:
    """Yields a row for each number of clients and way to decide.

    Args:
      size: `full`, or `small` for a smoke test.
      repeats: measured runs.
    """
    numbers, interval = SIZES[size]
    for clients in numbers:
        runs = {way: Experiment(config_of(clients, density, interval)).simulation for way, density in WAYS.items()}
        found: dict[str, list[dict[str, float]]] = {way: [] for way in runs}
        for turn in range(repeats):
            for way in list(runs) if turn % 2 == 0 else reversed(list(runs)):
                found[way].append(measure(runs[way]))
        base = [one["host"] for one in found["seldom"]]
        for way, seen in found.items():
            decides = f"after every {interval} windows" if way == "seldom" else way
            host = [one["host"] for one in seen]
            more = spread([own - less for own, less in zip(host, base, strict=True)])
            yield {
                "kernel": f"{clients:,} clients, decisions {decides}",
                "clients": clients,
                "decides": decides,
                "windows": MEASURED * interval,
                "seed": SEED,
                **against(host, base),
                **{f"more_s{end}": more[key] for end, key in (("", "median"), ("_min", "min"), ("_max", "max"))},
                **{f"{name}_s": statistics.median(one[name] for one in seen) for name in ("training", "wall")},
                "parts": {part: spread([one[part] for one in seen]) for part in (*PURPOSES, "rest")},
            }


def table(found: list[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table; times in ms of a round, medians (least, largest)."""
    named = [*PURPOSES.values(), "rest", "together", "more than asked seldom", "training", "real time"]
    lines = [f"| {' | '.join(['', *named])} |", "|---" * (1 + len(named)) + "|"]
    for row in found:
        cells = [f"{1e3 * part['median']:.2f}" for part in row["parts"].values()]
        for median, runs in ((row["median"], row["runs"]), (row["more_s"], (row["more_s_min"], row["more_s_max"]))):
            cells.append(f"{1e3 * median:.2f} ({1e3 * min(runs):.2f}, {1e3 * max(runs):.2f})")
        cells += [f"{1e3 * row[key]:.2f}" for key in ("training_s", "wall_s")]
        lines.append(f"| {row['kernel']} | {' | '.join(cells)} |")
    return "\n".join(lines)

"""The suite `devices`: windows with few and many arrivals on one device and on several.

Clients lie on devices for good, so in a window in which few of them arrive one device may have more than its share, or
all. Which clients arrive is drawn anew for each run, the same for every number of devices, and runs alternate.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prfl_jax.bench.workload import CLASSES, INPUT_SHAPE, SIZES, Workload
from prfl_jax.data.device import DeviceData
from prfl_jax.devices import ALL, Placement
from prfl_jax.engine import STATE_SPEC, split_keys
from prfl_jax.plan import Arriving, make_row, stack_rows
from prfl_jax.simulation import make_engine, resolve

METHOD = (
    "one window: k of ten Conv2 clients, drawn anew for each run, train five steps of 20 images; no aggregation. Runs "
    "on one device and on several alternate with the same clients; ratio: median over the turns of several to one. "
    "largest_share: mean over the runs of the arrivals of the device that had most, over k."
)
ARRIVALS = (1, 2, 3, 5, 7, 10)


class _Window:
    """Windows of one workload on so many devices."""

    def __init__(self, work: Workload, devices: int) -> None:
        self.work, self.rounds = work, np.zeros(work.clients, np.int64)
        self.placement = Placement(work.clients, tuple(jax.devices()[:devices]))
        config = work.config("fedavg")
        config.clients.number = work.clients
        config.local.steps, config.local.batch_size = work.steps, work.batch_size
        method = resolve(config, INPUT_SHAPE, CLASSES)
        self._engine = make_engine(config, method, self.placement)
        init_key, keys = split_keys(0)
        words = np.asarray(jax.random.key_data(init_key))
        make = self.placement.jit_global(
            lambda words: self._engine.init_state(jax.random.wrap_key_data(words)), STATE_SPEC
        )
        self._state = make(words)
        data = DeviceData(**{name: jnp.asarray(values) for name, values in work.host_data().items()})
        self._data = data if devices == 1 else self.placement.put(data, ALL)
        wrap = self.placement.jit_global(lambda words: jax.tree.map(jax.random.wrap_key_data, words), ALL)
        self._keys = wrap(jax.tree.map(lambda key: np.asarray(jax.random.key_data(key)), keys))
        self._chunk: Any = None

    def run(self, clients: list[int]) -> float:
        """s that a window with these arrivals takes."""
        work = self.work
        arrivals = [Arriving(c, c, int(self.rounds[c]), work.lr, 1 / len(clients)) for c in clients]
        self.rounds[clients] += 1
        plan = self.placement.split_plan(stack_rows([make_row(work.clients, [], arrivals)], 1))
        if self._chunk is None:
            lowered = self._engine.run_chunk.lower(self._state, self._data, plan, np.int32(1), self._keys)
            self._chunk = lowered.compile()
        start = time.perf_counter()
        self._state, losses = self._chunk(self._state, self._data, plan, np.int32(1), self._keys)
        jax.block_until_ready((self._state, losses))
        return time.perf_counter() - start


def rows(size: str, repeats: int) -> Iterator[dict[str, Any]]:
    """A row for each number of arrivals and of devices; of one device, what the others are compared with.

    Args:
      size: `full` or `small`, a smoke test.
      repeats: runs that count.
    """
    work, there = SIZES[size], len(jax.devices())
    counts = sorted({1, *(count for count in (2, 4, there) if count <= min(there, work.clients))})
    windows = {count: _Window(work, count) for count in counts}
    rng = np.random.default_rng(0)
    for window in windows.values():
        window.run(list(range(work.clients)))  # compiles
    for k in [k for k in ARRIVALS if k <= work.clients]:
        draws = [rng.choice(work.clients, k, replace=False).tolist() for _ in range(repeats)]
        seconds: dict[int, list[float]] = {count: [] for count in counts}
        for clients in draws:
            for count, window in windows.items():
                seconds[count].append(window.run(clients))
        for count in counts:
            most = [max(np.bincount(np.array(clients) % count)) / k for clients in draws]
            ratios = [several / one for several, one in zip(seconds[count], seconds[1], strict=True)]
            yield {
                "kernel": f"{k} of {work.clients} arrive", "arrivals": k, "devices": count, "unit": "s",
                "median": statistics.median(seconds[count]), "runs": seconds[count],
                "ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios),
                "largest_share": float(np.mean(most)),
            }  # fmt: skip


def table(found: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| arrivals | devices | median, ms | ratio to one device | largest share |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['arrivals']} | {row['devices']} | {1e3 * row['median']:.0f} | {row['ratio']:.2f} "
        f"({row['ratio_min']:.2f}, {row['ratio_max']:.2f}) | {row['largest_share']:.2f} |"
        for row in found
    ]
    return "\n".join(lines)

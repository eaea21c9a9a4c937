"""The suite `devices` times windows with few and with many arrivals, on one device and on several.

A client stays on its device, so in a window with few arrivals one device may have more than its share of the work, or
all of it. The arriving clients are drawn at random for each run and are the same for every number of devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from prfl_jax.benchmarks.timing import against
from prfl_jax.benchmarks.workload import SIZES, Windows
from prfl_jax.engine.plan import make_row
from prfl_jax.system import accelerator

METHOD = (
    "One window: k of ten Conv2 clients, drawn at random for each run, train five steps of 20 images; nothing is "
    "aggregated. Runs on one device and on several alternate with the same clients; ratio: median over the turns of "
    "the time on several devices divided by the time on one. largest_share: mean over the runs of the largest number "
    "of arrivals on one device divided by k."
)
ARRIVALS = (1, 2, 3, 5, 7, 10)


def rows(size: str, repeats: int) -> Iterator[dict[str, Any]]:
    """Yields a row for each number of arrivals and of devices; the ratios are to the row of one device.

    Args:
      size: `full`, or `small` for a smoke test.
      repeats: measured runs.
    """
    work, there = SIZES[size], len(accelerator.devices())
    counts = sorted({1, *(count for count in (2, 4, there) if count <= min(there, work.clients))})
    windows = {count: Windows(work, count) for count in counts}
    rng = np.random.default_rng(0)

    def run(window: Windows, clients: list[int]) -> float:
        return window.run([make_row(work.clients, [], [window.arrival(c, 1 / len(clients)) for c in clients])])

    for window in windows.values():
        run(window, list(range(work.clients)))  # compiles
    for k in [k for k in ARRIVALS if k <= work.clients]:
        draws = [rng.choice(work.clients, k, replace=False).tolist() for _ in range(repeats)]
        seconds: dict[int, list[float]] = {count: [] for count in counts}
        for clients in draws:
            for count, window in windows.items():
                seconds[count].append(run(window, clients))
        for count in counts:
            most = [max(np.bincount(np.array(clients) % count)) / k for clients in draws]
            yield {
                "kernel": f"{k} of {work.clients} arrive", "arrivals": k, "devices": count,
                **against(seconds[count], seconds[1]), "largest_share": float(np.mean(most)),
            }  # fmt: skip


def table(found: list[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table."""
    lines = ["| arrivals | devices | median, ms | ratio to one device | largest share |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['arrivals']} | {row['devices']} | {1e3 * row['median']:.0f} | {row['ratio']:.2f} "
        f"({row['ratio_min']:.2f}, {row['ratio_max']:.2f}) | {row['largest_share']:.2f} |"
        for row in found
    ]
    return "\n".join(lines)

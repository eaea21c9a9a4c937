"""The suite `axes` times ways to train the clients: one after another or in groups, on arrival or ahead of it.

Two kinds of windows: one in which all clients arrive, and as many as there are clients, in each of which one arrives.
On an accelerator also what products are computed in. The ways run in turn, each on the same rounds of the same clients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax

from prfl_jax.benchmarks.timing import against
from prfl_jax.benchmarks.workload import SIZES, Windows, Workload
from prfl_jax.engine.plan import Plan, make_row

METHOD = (
    "ten Conv2 clients train five steps of 20 images each, in one window where all arrive or in ten where one does; no "
    "aggregation. Ways alternate; ratio: median over the turns to map at arrival, which trains one after another as "
    "each arrives. ahead: the first arrival has all trained."
)


def ways(clients: int, accelerator: bool) -> dict[str, dict[str, Any]]:
    """`config.engine` of each way, by name; the first is what others are compared with."""
    found: dict[str, dict[str, Any]] = {"map": {"clients": "map"}}
    for group in sorted({g for g in (2, 5) if g < clients} | {clients}):
        found[f"vmap of {group}"] = {"clients": "vmap", "group": group}
    found["vmap ahead"] = {"clients": "vmap", "train": "pending"}
    if accelerator:
        for matmul in ("tensorfloat32", "bfloat16"):
            found[f"vmap ahead, {matmul}"] = {**found["vmap ahead"], "matmul": matmul}
    return found


def plans(window: Windows, work: Workload, together: bool, ahead: bool) -> list[Plan]:
    """The next round of all clients, in one row or in one each."""
    rounds = [window.arrival(client, 1 / work.clients) for client in range(work.clients)]
    rows = [rounds] if together else [[one] for one in rounds]
    return [make_row(work.clients, [], row, train=rounds if ahead and not k else ()) for k, row in enumerate(rows)]


def rows(size: str, repeats: int) -> Iterator[dict[str, Any]]:
    """A row for each way and kind of window.

    Args:
      size: `full` or `small`, a smoke test.
      repeats: runs that count.
    """
    work = SIZES[size]
    named = ways(work.clients, jax.default_backend() != "cpu")
    made = {name: Windows(work, most=work.clients, **settings) for name, settings in named.items()}
    for together in (True, False):
        seconds: dict[str, list[float]] = {name: [] for name in made}
        for turn in range(repeats + 1):
            for name, window in made.items():
                took = window.run(plans(window, work, together, "train" in named[name]))
                if turn:  # the first one compiles, or makes its pages
                    seconds[name].append(took)
        base = seconds[next(iter(seconds))]
        for name, runs in seconds.items():
            compared = against(runs, base)
            yield {
                "kernel": f"{name}, {'all in one window' if together else 'one a window'}",
                "way": name,
                "windows": 1 if together else work.clients,
                "ms_per_update": 1e3 * compared["median"] / work.clients,
                **compared,
            }


def table(found: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| way | windows | ms per update | ratio to map |", "|---|---|---|---|"]
    lines += [
        f"| {row['way']} | {row['windows']} | {row['ms_per_update']:.2f} | {row['ratio']:.2f} "
        f"({row['ratio_min']:.2f}, {row['ratio_max']:.2f}) |"
        for row in found
    ]
    return "\n".join(lines)

"""The suite `axes` times ways to train the clients: one after another or in groups, at their arrival or ahead of it.

It measures one window in which all clients arrive, and a series of windows in each of which one client arrives. On an
accelerator it also compares the precisions of matrix products. The ways take turns on the same rounds of the same
clients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prfl_jax.benchmarks.timing import against
from prfl_jax.benchmarks.workload import SIZES, Windows, Workload
from prfl_jax.engine.plan import Plan, make_row
from prfl_jax.system import accelerator

METHOD = (
    "Ten Conv2 clients train five steps of 20 images each, in one window in which all arrive or in ten windows with "
    "one arrival each; nothing is aggregated. The ways take turns; ratio: median over the turns of the time divided by "
    "that of map, which trains one client after another at its arrival. ahead: the first arrival trains all clients."
)


def ways(clients: int, accelerator: bool) -> dict[str, dict[str, Any]]:
    """Returns the settings of `config.engine` of each way, by name; the others are compared with the first one."""
    found: dict[str, dict[str, Any]] = {"map": {"clients": "map"}}
    for group in sorted({g for g in (2, 5) if g < clients} | {clients}):
        found[f"vmap of {group}"] = {"clients": "vmap", "group": group}
    found["vmap ahead"] = {"clients": "vmap", "train": "pending"}
    if accelerator:
        for matmul in ("tensorfloat32", "bfloat16"):
            found[f"vmap ahead, {matmul}"] = {**found["vmap ahead"], "matmul": matmul}
    return found


def plans(window: Windows, work: Workload, together: bool, ahead: bool) -> list[Plan]:
    """Returns the next round of all clients, as one row (`together`) or as one row for each client."""
    rounds = [window.arrival(client, 1 / work.clients) for client in range(work.clients)]
    rows = [rounds] if together else [[one] for one in rounds]
    return [make_row(work.clients, [], row, train=rounds if ahead and not k else ()) for k, row in enumerate(rows)]


def rows(size: str, repeats: int) -> Iterator[dict[str, Any]]:
    """Yields a row for each way and kind of window.

    Args:
      size: `full`, or `small` for a smoke test.
      repeats: measured runs.
    """
    work = SIZES[size]
    named = ways(work.clients, not accelerator.on_cpu())
    made = {name: Windows(work, most=work.clients, **settings) for name, settings in named.items()}
    for together in (True, False):
        seconds: dict[str, list[float]] = {name: [] for name in made}
        for turn in range(repeats + 1):
            for name, window in made.items():
                took = window.run(plans(window, work, together, "train" in named[name]))
                if turn:  # the first turn compiles and allocates memory
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
    """Returns the rows as a Markdown table."""
    lines = ["| way | windows | ms per update | ratio to map |", "|---|---|---|---|"]
    lines += [
        f"| {row['way']} | {row['windows']} | {row['ms_per_update']:.2f} | {row['ratio']:.2f} "
        f"({row['ratio_min']:.2f}, {row['ratio_max']:.2f}) |"
        for row in found
    ]
    return "\n".join(lines)

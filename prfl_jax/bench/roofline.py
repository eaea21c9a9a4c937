"""The suite `roofline`: each kernel's time beside the least that this machine could take for it.

The floor is the larger of FLOP over the measured matmul peak and least bytes over the measured bandwidth of memory,
every input read once and every output written once, whatever the kernel really moves. A convolution is counted with
the FLOP of its plain sum, so a form with fewer multiplications may come above what its products alone would.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from prfl_jax.bench.kernels import KernelSuite
from prfl_jax.bench.timing import Row, Timed, alternate
from prfl_jax.bench.workload import INPUT_SHAPE

METHOD = (
    "peak: the best of square float32 products of three sizes; bandwidth: read plus write traffic of negating an array "
    "larger than the caches in place; both measured before and after the kernels, the larger median counts. "
    "floor_s = max(flop / peak, bytes / bandwidth); achieved_over_floor = floor_s / median."
)
SERVER_GOAL, TRAINING_GOAL = 0.5, 0.6


@dataclasses.dataclass(frozen=True)
class Machine:
    """Attributes: `flop_s` of the best matrix product, `bytes_s` read and written by an in-place pass over memory."""

    flop_s: float
    bytes_s: float

    def floor_s(self, flop: float, size: float) -> float:
        return max(flop / self.flop_s, size / self.bytes_s)


def measure(small: bool, repeats: int) -> Machine:
    """The machine's own limits, as JAX reaches them."""
    sides = (64,) if small else (1024, 2048, 3072)
    multiply = jax.jit(jnp.matmul)
    tasks: dict[str, Callable[[], float]] = {}
    for side in sides:
        a = jnp.ones((side, side), jnp.float32)
        tasks[str(side)] = Timed(lambda a=a: multiply(a, a), 0.0 if small else 0.1)  # type: ignore[misc]
    values = jnp.ones(10_000 if small else 64_000_000, jnp.float32)
    turn = jax.jit(lambda values: -values, donate_argnums=0)  # in place: the pages are there
    held = [values]

    def copy() -> jax.Array:
        held[0] = turn(held[0])
        return held[0]

    tasks["copy"] = Timed(copy, 0.0 if small else 0.1)
    runs = alternate(tasks, repeats, 0.0)
    rates = [2.0 * side**3 / statistics.median(runs[str(side)]) for side in sides]
    return Machine(max(rates), 2.0 * values.size * 4 / statistics.median(runs["copy"]))


class RooflineSuite:
    """Measures rows; `machine` is there when all are.

    Args:
      size: `full` or `small`, a smoke test.
      repeats: runs of each kernel that count.
    """

    def __init__(self, size: str, repeats: int) -> None:
        self._kernels, self._small, self._repeats = KernelSuite(size, repeats, race=False), size == "small", repeats
        self.machine = Machine(0.0, 0.0)

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows, after all are measured."""
        before = measure(self._small, self._repeats)
        rows = list(self._kernels.rows())
        after = measure(self._small, self._repeats)
        self.machine = Machine(max(before.flop_s, after.flop_s), max(before.bytes_s, after.bytes_s))
        for row in rows:
            yield self._row(row, *self.needs()[row.kernel])

    def needs(self) -> dict[str, tuple[float, float]]:
        """(FLOP, least bytes) of each kernel."""
        work, method = self._kernels.work, self._kernels.method
        shapes = jax.tree.leaves(method.model.shapes())
        model = 4.0 * sum(shape.size for shape in shapes)
        weights, clients = float(sum(method.size.layers)), work.clients
        bits = weights / 8
        forward = sum(method.model.leaf_flop.values())
        samples = clients * work.steps * work.batch_size
        training = 3.0 * forward * samples, clients * 3 * model  # read what was sent, write or add what was trained
        image = float(math.prod(INPUT_SHAPE))
        masked = clients * (model + bits)
        return {
            "levels": (0.0, 5 * weights),
            "levels_tied": (0.0, 5 * weights),
            "local_training": training,
            "local_training_masked": training,
            "local_training_importance": training,
            "maskfedavg": (0.0, masked + 2 * model),
            "fedavg": (0.0, clients * model + model),
            "dispatch": (0.0, model + weights + masked),
            "split_model": (0.0, model + weights + clients * model),  # one dense array an increment
            "evaluation": (forward * work.test_images, model + work.test_images * image),
        }

    def _row(self, row: Row, flop: float, size: float) -> dict[str, Any]:
        assert row.median is not None
        floor = self.machine.floor_s(flop, size)
        goal = TRAINING_GOAL if row.kernel.startswith("local_training") else SERVER_GOAL
        return {
            "kernel": row.kernel, "unit": "s", "median": row.median, "runs": list(row.runs),
            "flop": flop, "bytes": size, "floor_s": floor,
            "bound_by": "flop" if flop / self.machine.flop_s >= floor else "bytes",
            "achieved_over_floor": floor / row.median, "goal": goal, "note": row.note,
        }  # fmt: skip


def table(rows: list[dict[str, Any]], machine: Machine) -> str:
    """The rows as Markdown."""
    lines = [
        f"peak {machine.flop_s / 1e9:.0f} GFLOP/s, {machine.bytes_s / 1e9:.1f} GB/s",
        "",
        "| kernel | median, ms | floor, ms | bound by | achieved / floor | goal |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['kernel']} | {1e3 * row['median']:.1f} | {1e3 * row['floor_s']:.1f} | {row['bound_by']} | "
        f"{row['achieved_over_floor']:.2f} | {row['goal']:g} |"
        for row in rows
    ]
    return "\n".join(lines)

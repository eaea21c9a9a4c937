"""The suite `roofline` compares each kernel's time with the least that the machine's matmul peak and memory allow.

This least time, the floor, is the larger of FLOP / measured matmul peak and bytes / measured memory bandwidth. The
bytes count every input read once and every output written once, whatever the kernel really moves. A convolution counts
the FLOP of its plain sum, so a form with fewer multiplications may be rated higher than its products alone would be.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from prfl_jax.benchmarks.kernels import KernelSuite
from prfl_jax.benchmarks.timing import Row, Task, Timed, alternate
from prfl_jax.benchmarks.workload import INPUT_SHAPE

METHOD = (
    "A square float32 product (the fastest of three sizes) and an in-place negation of an array larger than the caches "
    "take turns with each kernel, so that peak and bandwidth (read plus write) are measured in the same seconds. In "
    "each turn the floor is max(flop / peak, bytes / bandwidth); achieved_over_floor is the median of floor / time, "
    "with its smallest and largest value; floor_s and limits are medians."
)
SERVER_GOAL, TRAINING_GOAL = 0.5, 0.6


@dataclasses.dataclass(frozen=True)
class Machine:
    """Limits of a machine: FLOP/s of the best matrix product, bytes/s read and written by an in-place pass."""

    flop_s: float
    bytes_s: float

    def floor_s(self, flop: float, size: float) -> float:
        """Returns the least time in s for so many FLOP and bytes."""
        return max(flop / self.flop_s, size / self.bytes_s)


class Limits:
    """Tasks that measure the limits of the machine, as far as JAX reaches them."""

    def __init__(self, small: bool) -> None:
        multiply, least_s = jax.jit(jnp.matmul), 0.0 if small else 0.1
        products: dict[str, Timed] = {}
        for side in (64,) if small else (1024, 2048, 3072):
            a = jnp.ones((side, side), jnp.float32)
            products[str(side)] = Timed(lambda a=a: multiply(a, a), least_s)  # type: ignore[misc]
        runs = alternate(products, 1 if small else 3, 0.0)
        rates = {name: int(name) ** 3 / statistics.median(runs[name]) for name in products}
        fastest = max(rates, key=lambda name: rates[name])
        values = jnp.ones(10_000 if small else 64_000_000, jnp.float32)
        turn = jax.jit(lambda values: -values, donate_argnums=0)  # in place, so that no memory is allocated
        held = [values]

        def copy() -> jax.Array:
            held[0] = turn(held[0])
            return held[0]

        self.tasks: dict[str, Task] = {"matmul": products[fastest], "copy": Timed(copy, least_s)}
        self._flop, self._bytes = 2.0 * int(fastest) ** 3, 2.0 * values.size * 4

    def machines(self, beside: Mapping[str, Sequence[float]]) -> list[Machine]:
        """Returns the limits in each turn, from the s of the tasks in `beside`."""
        return [
            Machine(self._flop / matmul, self._bytes / copy)
            for matmul, copy in zip(beside["matmul"], beside["copy"], strict=True)
        ]


class RooflineSuite:
    """Measures the rows of the suite.

    Args:
      size: `full`, or `small` for a smoke test.
      repeats: measured runs of each kernel.

    Attributes:
      limits: medians over all turns, once all rows are measured.
    """

    def __init__(self, size: str, repeats: int) -> None:
        self._limits = Limits(size == "small")
        self._kernels = KernelSuite(size, repeats, race=False, beside=self._limits.tasks)
        self.limits = Machine(0.0, 0.0)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yields each row as soon as it is measured."""
        seen: list[Machine] = []
        needs = self.needs()
        for row in self._kernels.rows():
            machines = self._limits.machines(row.beside)
            seen += machines
            yield self._row(row, machines, *needs[row.kernel])
        self.limits = Machine(
            statistics.median(machine.flop_s for machine in seen),
            statistics.median(machine.bytes_s for machine in seen),
        )

    def needs(self) -> dict[str, tuple[float, float]]:
        """Returns (FLOP, least bytes) of each kernel."""
        work, method = self._kernels.work, self._kernels.method
        shapes = jax.tree.leaves(method.model.shapes())
        model = 4.0 * sum(shape.size for shape in shapes)
        weights, clients = float(sum(method.size.layers)), work.clients
        bits = weights / 8
        forward = method.model.flop.total(work.batch_size)
        samples = clients * work.steps * work.batch_size
        training = 3.0 * forward * samples, clients * 3 * model  # reads the sent model, writes or adds the trained one
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
            "split_model": (0.0, model + weights + clients * model),  # one dense array for each increment
            "evaluation": (forward * work.test_images, model + work.test_images * image),
        }

    def _row(self, row: Row, machines: Sequence[Machine], flop: float, size: float) -> dict[str, Any]:
        assert row.median is not None
        floors = [machine.floor_s(flop, size) for machine in machines]
        shares = [floor / own for floor, own in zip(floors, row.runs, strict=True)]
        bound = statistics.median(flop / machine.flop_s - size / machine.bytes_s for machine in machines)
        return {
            "kernel": row.kernel, "unit": "s", "median": row.median, "runs": list(row.runs),
            "flop": flop, "bytes": size, "floor_s": statistics.median(floors),
            "bound_by": "flop" if bound > 0 else "bytes",
            "achieved_over_floor": statistics.median(shares), "least": min(shares), "largest": max(shares),
            "goal": TRAINING_GOAL if row.kernel.startswith("local_training") else SERVER_GOAL, "note": row.note,
        }  # fmt: skip


def table(rows: list[dict[str, Any]], machine: Machine) -> str:
    """Returns the limits and the rows as Markdown."""
    lines = [
        f"peak {machine.flop_s / 1e9:.0f} GFLOP/s, {machine.bytes_s / 1e9:.1f} GB/s",
        "",
        "| kernel | median, ms | floor, ms | bound by | achieved / floor (least, largest) | goal |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['kernel']} | {1e3 * row['median']:.1f} | {1e3 * row['floor_s']:.1f} | {row['bound_by']} | "
        f"{row['achieved_over_floor']:.2f} ({row['least']:.2f}, {row['largest']:.2f}) | {row['goal']:g} |"
        for row in rows
    ]
    return "\n".join(lines)

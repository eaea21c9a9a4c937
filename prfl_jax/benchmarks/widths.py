"""The suite `widths` times client updates of sub-models of channels, at full size and in narrower networks.

One client after another, on one device. The updates at each density take turns with those of the full network.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prfl_jax import strategies
from prfl_jax.benchmarks.timing import Timed, against, alternate
from prfl_jax.config.defaults import default_config
from prfl_jax.engine.method import resolve
from prfl_jax.local import Batches, LocalInput, LocalTask, LocalWork
from prfl_jax.local.settings_from_config import settings_from_config
from prfl_jax.submodel.masks import apply_masks

DENSITIES = (25, 50, 75, 100)
# by size of the suite: network, its width, shape of an image; half the AlexNet is what FedMP's CPU preset takes
NETWORKS = {
    "full": (("cnn", 1.0, (28, 28, 1)), ("vgg11", 1.0, (32, 32, 3)), ("alexnet", 0.5, (32, 32, 3))),
    "small": (("cnn", 0.25, (28, 28, 1)),),
}
METHOD = (
    "A client trains five steps of 20 random images, from the channels of largest l1 norm at each density. at full "
    "size: by masks alone; else in the narrowest of four networks that holds them, with the values taken out and put "
    "back. The ways take turns; ratio: median over the turns of the time divided by that of the full network at full "
    "size. compile_s: s of the first call, less a later one."
)


def rows(size: str, repeats: int) -> Iterator[dict[str, Any]]:
    """Yields a row for each network, way and density.

    Args:
      size: `full`, or `small` for a smoke test.
      repeats: measured runs.
    """
    for name, width, shape in NETWORKS[size]:
        yield from _network(name, width, shape, repeats)


def _network(name: str, width: float, shape: tuple[int, ...], repeats: int) -> Iterator[dict[str, Any]]:
    config = strategies.use(default_config(), "fedmp")
    config.model.name, config.model.width = name, width
    config.engine.clients, config.engine.widths = "map", (0.25, 0.5, 0.75)
    method = resolve(config, shape, 10)
    assert method.widths is not None and method.submodels.masks is not None
    task = LocalTask(method.model, method.loss, method.layout, settings_from_config(config, method.work))
    params, rng = jax.jit(method.model.init)(jax.random.key(0)), np.random.default_rng(0)
    steps = config.local.steps, config.local.batch_size
    x = jnp.asarray(rng.normal(size=(*steps, *shape)), jnp.float32)
    y = jnp.asarray(rng.integers(0, 10, steps), jnp.int32)
    weights = method.layout.prunable_leaves(params)

    def update(work: LocalWork) -> Any:
        @jax.jit
        def run(sent: Any, masks: Any, x: jax.Array, y: jax.Array) -> Any:
            batches = Batches(lambda number: (x[number], y[number]), lambda: (x, y))
            given = LocalInput(sent, masks, batches, jnp.float32(0.05), jax.random.key(1))
            return work.round(task, given)[:2]

        return run

    ways = {"at full size": update(method.work), "in widths": update(method.widths.wrap(method.work))}
    runs = {}
    compiled: dict[str, float] = {}
    for way, run in ways.items():
        for percent in DENSITIES if way == "in widths" else (100,):
            masks = jax.jit(method.submodels.masks)((), weights, jnp.int32(percent))
            args = (apply_masks(method.layout, params, masks), masks, x, y)
            start = time.perf_counter()
            runs[way, percent] = timed = Timed(functools.partial(run, *args), 0.2)
            compiled.setdefault(way, time.perf_counter() - start - timed())
    seconds = alternate({f"{way} {percent}": timed for (way, percent), timed in runs.items()}, repeats, 0.0)
    base = seconds["at full size 100"]
    for way, percent in runs:
        compared = against(seconds[f"{way} {percent}"], base)
        yield {
            "kernel": f"{name}, density {percent} %, {way}",
            "network": name,
            "width": width,
            "way": way,
            "density_pct": percent,
            "compile_s": compiled[way],
            **compared,
        }


def table(found: list[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table."""
    lines = ["| client update | ms | ratio to the full network | compile s |", "|---|---|---|---|"]
    lines += [
        f"| {row['kernel']} | {1e3 * row['median']:.1f} | {row['ratio']:.2f} ({row['ratio_min']:.2f}, "
        f"{row['ratio_max']:.2f}) | {row['compile_s']:.1f} |"
        for row in found
    ]
    return "\n".join(lines)

"""Fig. 11: what FedMP costs the server in a round, by number of workers, measured on this machine when it is made.

Deciding is on the host: every worker's agent hears its reward and draws a ratio. Pruning is on JAX's device: the l1
ranking of the CNN and the masks of each worker, one worker after another, as a run dispatches them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prfl_jax import strategies
from prfl_jax.clock.types import Arrival
from prfl_jax.config.defaults import default_config
from prfl_jax.density import Evidence, make_density
from prfl_jax.engine.method import resolve
from prfl_jax.studies.curves import COLOURS, grid, save
from prfl_jax.studies.study import Material
from prfl_jax.studies.tables import write_table
from prfl_jax.submodel.masks import pack
from prfl_jax.system.environment import device
from prfl_jax.system.jax_settings import root_key

WORKERS = (10, 20, 30, 100, 1000)
LEARNT = 200  # rounds that the agents have behind them
REPEATS = 5
DECISION, PRUNING = "decision", "pruning"


def config_of(workers: int, width: float = 1.0) -> Any:
    """FedMP on the CNN with so many workers."""
    c = strategies.use(default_config(), "fedmp")
    c.clients.number = workers
    c.model.name, c.model.classes, c.model.loss = "cnn", 10, "softmax"
    c.model.width = width
    return c


def decision_s(workers: int, learnt: int = LEARNT, repeats: int = REPEATS) -> list[float]:
    """Seconds of single decisions for so many workers, after so many rounds of made-up times and losses."""
    config = config_of(workers)
    policy = make_density(config.density, workers, seed=0)
    rng = np.random.default_rng(0)
    speed, loss = rng.uniform(1.0, 4.0, workers), np.full(workers, 2.0)
    found = []
    for window in range(1, 1 + learnt + repeats):
        percent = policy.density_pct
        seconds = speed * percent / 100 * rng.lognormal(0.0, 0.1, workers)
        loss *= 1.0 - 0.02 * rng.uniform(0.3, 1.7, workers)
        policy.observe([_arrival(worker, s) for worker, s in enumerate(seconds.tolist())], percent)
        begin = time.perf_counter()
        policy.decide(Evidence(train_loss=loss.copy()))
        if window > learnt:
            found.append(time.perf_counter() - begin)
    return found


def _arrival(worker: int, round_s: float) -> Arrival:
    return Arrival(worker, 0, 0, 0.0, 0.0, round_s, round_s, 0)


def pruner(percent: np.ndarray, width: float = 1.0) -> Callable[[], tuple[jax.Array, ...]]:
    """A call that makes the packed masks `[M, bytes]` of each leaf of the CNN, for workers of these densities `[M]`."""
    workers = len(percent)
    config = config_of(workers, width)
    method = resolve(config, (28, 28, 1), 10)
    masks = method.submodels.masks
    if masks is None:
        raise ValueError("FedMP's sub-models make their masks from the weights")
    weights = method.layout.prunable_leaves(method.model.init(root_key(0)))
    empty = tuple(jnp.zeros((workers, *pack(leaf.reshape(-1) > 0).shape), jnp.uint8) for leaf in weights)

    @jax.jit
    def make(weights: Any, percent: jax.Array, bits: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        def one(worker: jax.Array, bits: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            made = masks((), weights, percent[worker])
            return tuple(b.at[worker].set(pack(m.reshape(-1))) for b, m in zip(bits, made, strict=True))

        return lax.fori_loop(0, workers, one, bits)

    return lambda: jax.block_until_ready(make(weights, jnp.asarray(percent, jnp.int32), empty))


def pruning_s(workers: int, repeats: int = REPEATS) -> list[float]:
    """Seconds to make the masks of so many workers on the CNN, without the compilation."""
    prune = pruner(np.random.default_rng(0).integers(5, 101, workers))
    prune()
    found = []
    for _ in range(repeats):
        begin = time.perf_counter()
        prune()
        found.append(time.perf_counter() - begin)
    return found


def fig11(material: Material) -> None:
    """Decision and pruning time of a round by number of workers: a figure and a table."""
    learnt, repeats = (LEARNT, REPEATS) if material.preset.clock_windows >= LEARNT else (5, 2)
    seconds = {
        workers: {DECISION: decision_s(workers, learnt, repeats), PRUNING: pruning_s(workers, repeats)}
        for workers in WORKERS
    }
    figure, (ax,) = grid(1, 6.0, 4.2)
    for part, colour in zip((DECISION, PRUNING), COLOURS[1:], strict=False):
        medians = [1000 * statistics.median(found[part]) for found in seconds.values()]
        ax.plot(list(seconds), medians, color=colour, marker="o", ms=4, lw=1.4, label=part)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(list(seconds), [f"{workers:,}" for workers in seconds])
    ax.minorticks_off()
    ax.set_xlabel("workers")
    ax.set_ylabel("host time of a round (ms)")
    ax.grid(True, color="0.93")
    ax.legend(fontsize=8)
    save(figure, material.out / "fig11", material.preset.mark)
    rows = []
    for workers, found in seconds.items():
        cells = [1000 * statistics.median(found[part]) for part in (DECISION, PRUNING)]
        spans = [f"{1000 * min(found[part]):.3g} to {1000 * max(found[part]):.3g}" for part in (DECISION, PRUNING)]
        rows.append([f"{workers:,}", f"{cells[0]:.3g}", spans[0], f"{cells[1]:.3g}", spans[1], f"{sum(cells):.3g}"])
    header = ["workers", "decision, ms", "least to most", "pruning, ms", "least to most", "both, ms"]
    machine = device()
    said = [
        *([material.preset.mark] if material.preset.mark else []),
        f"medians of {repeats} rounds, measured when this table was made; agents with {learnt} rounds behind them; "
        "pruning is the l1 ranking of the whole CNN and the masks of all workers",
        f"machine: {machine['kind']}, {machine['host_cores']} cores; other work may have run beside it",
        "the paper: far less than training and transmission, which take hundreds of seconds",
    ]
    write_table(material.out / "fig11", "Fig. 11: overhead of a round", header, rows, said)

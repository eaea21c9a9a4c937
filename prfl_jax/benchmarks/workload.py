"""The workload of all suites but `peers`: Conv2, ten clients, random images; a small version for smoke tests."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from prfl_jax import strategies
from prfl_jax.config.defaults import default_config
from prfl_jax.data.device import DeviceData, on_device
from prfl_jax.engine.client import split_keys
from prfl_jax.engine.engine import STATE_SPEC
from prfl_jax.engine.method import make_engine, resolve
from prfl_jax.engine.placement import ALL, Placement
from prfl_jax.engine.plan import LocalRound, Plan, make_row, stack_rows
from prfl_jax.submodel.masks import apply_masks, level_masks, pack
from prfl_jax.system import accelerator
from prfl_jax.system.jax_settings import key_of

INPUT_SHAPE, CLASSES = (28, 28, 1), 62


@dataclasses.dataclass(frozen=True)
class Workload:
    """Sizes of clients, data and local work.

    Attributes:
      clients: M.
      width: factor of Conv2's hidden widths.
      images: training images of each client.
      test_images: images of an evaluation.
      steps, batch_size: of one local round.
    """

    clients: int = 10
    width: float = 1.0
    images: int = 400
    test_images: int = 1000
    steps: int = 5
    batch_size: int = 20
    lr: float = 0.25

    def config(self, strategy: str) -> config_dict.ConfigDict:
        """Returns the default config of a strategy with this model, clients and local work."""
        config = strategies.use(default_config(), strategy)
        config.model.classes, config.model.width = CLASSES, self.width
        config.clients.number = self.clients
        config.local.steps, config.local.batch_size = self.steps, self.batch_size
        config.engine.train = "arrival"  # the suites make their own plans, which train nothing ahead
        return config

    def density_pct(self) -> np.ndarray:
        """Returns `[M]` int32 densities (percent), spread evenly up to 100."""
        return np.array([max(1, round(100 * (c + 1) / self.clients)) for c in range(self.clients)], np.int32)

    def host_data(self) -> dict[str, np.ndarray]:
        """Returns the fields of `DeviceData` as NumPy arrays: random images, dealt out to the clients."""
        rng = np.random.default_rng(0)
        n = self.clients * self.images
        return {
            "x": rng.integers(0, 256, (n, *INPUT_SHAPE), np.uint8),
            "y": rng.integers(0, CLASSES, n, np.int32),
            "index": rng.permutation(n).astype(np.int32).reshape(self.clients, self.images),
            "size": np.full(self.clients, self.images, np.int32),
        }


def device_data(host: dict[str, np.ndarray]) -> DeviceData:
    """Returns what `Workload.host_data` gives, on the device."""
    x, y = on_device(host["x"], host["y"])
    return DeviceData(x, y, *jax.tree.map(jnp.asarray, (host["index"], host["size"])))


SIZES = {
    "full": Workload(),
    "small": Workload(clients=3, width=0.05, images=12, test_images=20, steps=1, batch_size=4),
}


class Chunks:
    """An engine of one strategy that runs chunks of one row.

    Args:
      levels: of the nested sub-models; None: every weight is in every sub-model.
      importance: whether arrivals also gather squared gradients for the next pruning.

    Attributes:
      compile_s: s of compiling the chunk.
    """

    def __init__(
        self, work: Workload, strategy: str, data: DeviceData, levels: tuple[jax.Array, ...] | None = None,
        importance: bool = False,
    ) -> None:  # fmt: skip
        config = work.config(strategy)
        method = resolve(config, INPUT_SHAPE, CLASSES)
        if not importance:
            method = dataclasses.replace(method, importance=None)
        self.work, self.data, self.method = work, data, method
        self._rounds = 0
        engine = make_engine(config, method)
        init_key, self.keys = split_keys(0)
        self.state = jax.jit(engine.init_state)(init_key)
        if levels is not None:
            self.state = self.state._replace(levels=jax.tree.map(jnp.copy, levels))
        start = time.perf_counter()
        plan = self._plan([], [])
        self._chunk = engine.run_chunk.lower(self.state, data, plan, jnp.int32(1), self.keys).compile()
        self.compile_s = time.perf_counter() - start

    def _plan(self, dispatch: list[int], arrivals: list[LocalRound]) -> Plan:
        sent = [(client, int(self.work.density_pct()[client])) for client in dispatch]
        row = make_row(self.work.clients, sent, arrivals)
        return jax.tree.map(jnp.asarray, stack_rows([row], 1))

    def _run(self, plan: Plan) -> jax.Array:
        self.state, seen = self._chunk(self.state, self.data, plan, jnp.int32(1), self.keys)
        return seen.losses

    def dispatch(self) -> jax.Array:
        """Sends the server model to all clients, each under its own mask."""
        return self._run(self._plan(list(range(self.work.clients)), []))

    def train(self) -> jax.Array:
        """Trains all clients on their next batches, from the models they were sent; returns the losses `[1, M]`."""
        arrivals = [LocalRound(client, client, self._rounds, self.work.lr) for client in range(self.work.clients)]
        self._rounds += 1
        return self._run(self._plan([], arrivals))


class Windows:
    """Times windows of FedAvg on its own engine: the arriving clients train, nothing is aggregated.

    Args:
      devices: number of devices that share the clients.
      most: largest number of rows of a run.
      engine: settings of `config.engine`.
    """

    def __init__(self, work: Workload, devices: int = 1, most: int = 1, **engine: Any) -> None:
        self._work, self._most, self._rounds = work, most, [0] * work.clients
        self._placement = placement = Placement(work.clients, accelerator.devices()[:devices])
        config = work.config("fedavg")
        config.engine.update(engine)
        self._engine = make_engine(config, resolve(config, INPUT_SHAPE, CLASSES), placement)
        init_key, keys = split_keys(0)
        words = np.asarray(jax.random.key_data(init_key))
        make = placement.jit_global(lambda words: self._engine.init_state(key_of(words)), STATE_SPEC)
        self._state = make(words)
        data = device_data(work.host_data())
        self._data = data if devices == 1 else placement.put(data, ALL)
        wrap = placement.jit_global(lambda words: jax.tree.map(key_of, words), ALL)
        self._keys = wrap(jax.tree.map(lambda key: np.asarray(jax.random.key_data(key)), keys))
        self._chunk: Any = None

    def arrival(self, client: int, share: float) -> LocalRound:
        """Returns the client's next round; `share` is its weight in the aggregation."""
        self._rounds[client] += 1
        return LocalRound(client, client, self._rounds[client] - 1, self._work.lr, share)

    def run(self, rows: Sequence[Plan]) -> float:
        """Runs rows; returns their s. The first call compiles and sends the first model to all clients, untimed."""
        if self._chunk is None:
            everyone = [(client, 100) for client in range(self._work.clients)]
            plan = self._placement.split_plan(stack_rows([make_row(len(everyone), everyone, [])], self._most))
            lowered = self._engine.run_chunk.lower(self._state, self._data, plan, np.int32(1), self._keys)
            self._chunk = lowered.compile()
            self._state, _ = self._chunk(self._state, self._data, plan, np.int32(1), self._keys)
        plan, number = self._placement.split_plan(stack_rows(rows, self._most)), np.int32(len(rows))
        start = time.perf_counter()
        self._state, losses = self._chunk(self._state, self._data, plan, number, self._keys)
        jax.block_until_ready((self._state, losses))
        return time.perf_counter() - start


def scores(shapes: Iterable[tuple[int, ...]], tied: bool) -> tuple[jax.Array, ...]:
    """Returns random importance >= 0 in these shapes; `tied`: only eleven values, half of the weights at 0."""
    rng = np.random.default_rng(1)
    out = []
    for shape in shapes:
        draw = rng.standard_normal(shape, np.float32) ** 2
        out.append(jnp.asarray(np.floor(np.minimum(2 * draw, 10)) if tied else draw))
    return tuple(out)


def slots(chunks: Chunks) -> tuple[Any, tuple[jax.Array, ...]]:
    """Returns a full buffer `[M, ...]`, with other values in each slot under its own mask, and the packed masks."""
    work, layout = chunks.work, chunks.method.layout
    factors = jnp.linspace(0.5, 1.5, work.clients)

    @jax.jit
    def make(params: Any, levels: tuple[jax.Array, ...]) -> tuple[Any, tuple[jax.Array, ...]]:
        def one(item: tuple[jax.Array, jax.Array]) -> tuple[Any, tuple[jax.Array, ...]]:
            factor, percent = item
            masks = level_masks(levels, percent)
            sub_model = apply_masks(layout, jax.tree.map(lambda w: factor * w, params), masks)
            return sub_model, tuple(pack(mask.reshape(-1)) for mask in masks)

        return jax.lax.map(one, (factors, jnp.asarray(work.density_pct())))

    return make(chunks.state.params, chunks.state.levels)

"""The suite `kernels`: local training against PyTorch, aggregation, levels, dispatch, evaluation.

Every call here is one of the package's own jitted calls, on Conv2 with 62 outputs and
ten clients (`workload.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prfl_jax.aggregate import fedavg, maskfedavg
from prfl_jax.bench.timing import Row, Task, Timed, alternate
from prfl_jax.bench.torch_process import TorchProcess, TorchUnavailable
from prfl_jax.bench.workload import CLASSES, INPUT_SHAPE, SIZES, Chunks, Workload, copies, scores
from prfl_jax.data.device import DeviceData
from prfl_jax.evaluate import Evaluator, make_eval_set
from prfl_jax.models.build import flat_paths
from prfl_jax.submodel.levels import compute_levels
from prfl_jax.submodel.masks import apply_masks, level_masks, pack
from prfl_jax.submodel.split import split_model

LOCAL_RATIO, AGGREGATE_RATIO, LEVELS_S = 1.0, 3.0, 0.5
PAUSE_S = 0.3  # longer than idle threads of either framework spin


class KernelSuite:
    """Runs the suite once.

    Args:
      size: `full` (the bounds are about this one) or `small` (a smoke test).
      repeats: runs of each kernel that count.

    Attributes:
      torch: `about` of the PyTorch process, or why there is none.
    """

    def __init__(self, size: str = "full", repeats: int = 7) -> None:
        self.work: Workload = SIZES[size]
        self.repeats, self.judged = repeats, size == "full"
        self.pause_s = PAUSE_S if self.judged else 0.0
        self.torch: dict[str, Any] | str = "not asked"
        self._data = self.work.host_data()

    def rows(self) -> Iterator[Row]:
        """The rows, each as soon as it is measured."""
        data = DeviceData(**{key: jnp.asarray(value) for key, value in self._data.items()})
        yield from self._local_training(data)
        chunks = Chunks(self.work, "prfl", data)
        sizes, shapes = chunks.method.size, chunks.method.layout.shapes
        shapes = tuple(shapes[i] for i in chunks.method.layout.prunable)
        percents = self.work.percents()
        counts = jnp.asarray([sizes.count(int(p)) for p in percents], jnp.int32)
        percents = jnp.asarray(percents)
        find = jax.jit(partial(compute_levels.__wrapped__, base=sizes.base_counts()))
        for name, tied in (("levels", False), ("levels_tied", True)):
            values = scores(shapes, tied)
            note = f"{len(counts)} densities, {sum(sizes.layers)} weights" + ", eleven distinct scores" * tied
            yield self._row(name, lambda values=values: find(values, percents, counts), LEVELS_S, note)
        levels = compute_levels(scores(shapes, False), percents, counts, base=sizes.base_counts())
        yield from self._aggregation(chunks, levels, percents)
        yield from self._server(chunks, levels, percents)

    def _row(self, kernel: str, call: Callable[[], Any], bound_s: float | None = None, note: str = "") -> Row:
        timed = Timed(call, 0.1 if self.judged else 0.0)
        runs = alternate({kernel: timed}, self.repeats, 0.0)[kernel]
        return Row(
            kernel, runs, timed.compile_s(runs), bound=bound_s, bound_on="median", judged=self.judged,
            note=f"{note}; {timed.calls} calls a run".removeprefix("; "),
        )  # fmt: skip

    def _local_training(self, data: DeviceData) -> Iterator[Row]:
        """Local rounds of all clients in one chunk, batches drawn inside, nothing aggregated."""
        work = self.work
        kinds = {
            "local_training": (Chunks(work, "fedavg", data), "full models"),
            "local_training_masked": (Chunks(work, "prfl", data), "sub-models of densities 10, 20, ..., 100 %"),
            "local_training_importance": (
                Chunks(work, "prfl", data, importance=True),
                "as local_training_masked, and squared gradients summed for the next pruning",
            ),
        }
        if not self.judged:
            kinds["local_training_masked"] = (kinds["local_training_masked"][0], "sub-models")
        timed: dict[str, Timed] = {}
        for name, (chunks, _) in kinds.items():
            if name != "local_training":
                self._set_levels(chunks)
            chunks.dispatch()
            # run_chunk is compiled for the dispatch; another engine's first call tells what it costs
            timed[name] = Timed(chunks.train, 0.0)
        first = kinds["local_training"][0]
        leaves = {key: np.asarray(leaf) for key, leaf in flat_paths(first.state.params).items()}
        device = "cuda" if jax.default_backend() == "gpu" else "cpu"
        options = {"steps": work.steps, "batch_size": work.batch_size, "lr": work.lr, "device": device}
        tasks: dict[str, Task] = dict(timed)
        try:
            with TorchProcess(self._data, leaves, options) as process:
                self.torch = process.about
                runs = alternate({**tasks, "torch": process.round}, self.repeats, self.pause_s)
        except TorchUnavailable as why:
            self.torch = str(why)
            runs = {**alternate(tasks, self.repeats, self.pause_s), "torch": []}
        for name, (chunks, what) in kinds.items():
            losses = np.asarray(chunks.train())
            if not np.isfinite(losses).all():
                raise RuntimeError(f"{name}: losses {losses.tolist()}")
            images = work.clients * work.steps * work.batch_size
            note = f"{what}; {work.clients} clients x {work.steps} steps x {work.batch_size} images = {images} images"
            if isinstance(self.torch, str):
                note = f"{note}; {self.torch}"
            bounded = name != "local_training_importance"
            yield Row(
                name, runs[name], chunks.compile_s, "PyTorch, one client after another", runs["torch"],
                LOCAL_RATIO if bounded else None, judged=self.judged, note=note,
            )  # fmt: skip

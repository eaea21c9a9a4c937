"""The suite `kernels` times local training (also in PyTorch), aggregation, pruning levels, dispatch and evaluation.

Every kernel is one of the package's own jitted functions, on Conv2 with 62 outputs and ten clients (`workload.py`).
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prfl_jax.aggregate.maskfedavg import fedavg, maskfedavg
from prfl_jax.benchmarks.timing import Row, Task, Timed, alternate
from prfl_jax.benchmarks.torch_process import TorchProcess, TorchUnavailable
from prfl_jax.benchmarks.workload import CLASSES, INPUT_SHAPE, SIZES, Chunks, device_data, scores, slots
from prfl_jax.engine.evaluate import Evaluator, make_eval_set
from prfl_jax.engine.method import resolve
from prfl_jax.models.build import flat_paths
from prfl_jax.submodel.levels import find_levels
from prfl_jax.submodel.split import split_model
from prfl_jax.system import accelerator

METHOD = (
    "Kernels that are compared take turns, every second turn in reverse order, after one turn that is discarded; "
    "a pause precedes each run of local training. PyTorch runs in a separate process that waits on a pipe while "
    "others run, with as many threads as there are cores; its time is taken inside that process. Times of this process "
    "end when the device has finished. compile_s is tracing and compiling (or the first call minus a later one)."
)
LOCAL_RATIO, AGGREGATE_RATIO, LEVELS_S = 1.0, 3.0, 0.5  # the bounds: two ratios and s
PAUSE_S = 0.3  # s; longer than idle threads of either framework spin


class KernelSuite:
    """Measures the rows of the suite.

    Args:
      size: `full`, to which the bounds apply, or `small` for a smoke test.
      repeats: measured runs of each kernel.
      race: whether local training is timed in PyTorch too.
      beside: tasks that take turns with each kernel, by name (`Row.beside`).

    Attributes:
      work: sizes of clients, data and local work.
      method: model, layout and sizes of PR-FL's sub-models.
      torch: what the PyTorch process reports about itself, or why there is no such process.
    """

    def __init__(
        self, size: str = "full", repeats: int = 7, race: bool = True, beside: Mapping[str, Task] | None = None
    ) -> None:
        self.work, self.repeats, self.judged = SIZES[size], repeats, size == "full"
        self.pause_s = PAUSE_S if self.judged else 0.0
        self.torch: dict[str, Any] | str = "not started"
        self._race, self._beside = race, dict(beside or {})
        self._host_data = self.work.host_data()
        self._data = device_data(self._host_data)
        self.method = resolve(self.work.config("prfl"), INPUT_SHAPE, CLASSES)

    def rows(self) -> Iterator[Row]:
        """Yields each row as soon as it is measured."""
        size, layout = self.method.size, self.method.layout
        shapes = [layout.shapes[i] for i in layout.prunable]
        density_pct = self.work.density_pct()
        counts = np.asarray([size.count(int(p)) for p in density_pct], np.int32)
        find = partial(find_levels, base=size.base_counts())
        note = f"{sum(size.layers)} weights, {len(density_pct)} densities"
        for name, tied in (("levels", False), ("levels_tied", True)):
            values = scores(shapes, tied)
            note += ", eleven distinct scores" * tied
            yield self._alone(name, partial(find, values, density_pct, counts), LEVELS_S, note)
        levels, _, _ = find(scores(shapes, False), density_pct, counts)
        chunks = Chunks(self.work, "prfl", self._data, levels)
        yield from self._local_training(chunks, levels)
        yield from self._aggregation(chunks)
        note = f"all {self.work.clients} clients, under their masks"
        yield self._alone("dispatch", chunks.dispatch, note=note, compile_s=chunks.compile_s)
        increments = jax.jit(partial(split_model, layout=layout))
        yield self._alone(
            "split_model", partial(increments, chunks.state.params, levels, jnp.asarray(density_pct)),
            note=f"{len(density_pct)} increments of the delta split",
        )  # fmt: skip
        yield self._evaluation(chunks)

    def _timed(self, call: Callable[[], Any]) -> Timed:
        return Timed(call, 0.1 if self.judged else 0.0)

    def _alone(
        self, kernel: str, call: Callable[[], Any], bound_s: float | None = None, note: str = "",
        compile_s: float | None = None,
    ) -> Row:  # fmt: skip
        timed = self._timed(call)
        measured = alternate({kernel: timed, **self._beside}, self.repeats, 0.0)
        runs = measured[kernel]
        return Row(
            kernel, runs, timed.compile_s(runs) if compile_s is None else compile_s, bound=bound_s, bound_on="median",
            judged=self.judged, note=f"{note}; {timed.calls} calls a run", beside=self._of_beside(measured),
        )  # fmt: skip

    def _of_beside(self, measured: dict[str, list[float]]) -> dict[str, list[float]]:
        return {name: measured[name] for name in self._beside}

    def _local_training(self, masked: Chunks, levels: tuple[jax.Array, ...]) -> Iterator[Row]:
        """Times local rounds of all clients in one chunk, batches drawn on the device, without aggregation."""
        work = self.work
        chunks = {
            "local_training": Chunks(work, "fedavg", self._data),
            "local_training_masked": masked,
            "local_training_importance": Chunks(work, "prfl", self._data, levels, importance=True),
        }
        notes = ("full models", "sub-models of all densities", "the same, squared gradients summed for pruning")
        for item in chunks.values():
            item.dispatch()
        tasks: dict[str, Callable[[], float]] = {name: Timed(item.train, 0.0) for name, item in chunks.items()}
        tasks |= self._beside
        leaves = flat_paths(chunks["local_training"].state.params)
        params = {key: np.asarray(leaf) for key, leaf in leaves.items()}
        device = "cuda" if accelerator.backend() == "gpu" else "cpu"
        options: dict[str, Any] = {"steps": work.steps, "batch_size": work.batch_size, "lr": work.lr, "device": device}
        options["threads"] = (os.cpu_count() or 1) if self.judged else 1
        missing = ""
        try:
            if not self._race:
                raise TorchUnavailable("PyTorch was not asked for")
            with TorchProcess(self._host_data, params, options) as process:
                self.torch = process.about
                runs = alternate({**tasks, "torch": process.round}, self.repeats, self.pause_s)
        except TorchUnavailable as why:
            self.torch = missing = str(why)
            runs = {**alternate(tasks, self.repeats, self.pause_s), "torch": []}
        for (name, item), note in zip(chunks.items(), notes, strict=True):
            losses = np.asarray(item.train())
            if not np.isfinite(losses).all():
                raise RuntimeError(f"{name}: losses {losses.tolist()}")
            yield Row(
                name, runs[name], item.compile_s, "PyTorch, one client after another", runs["torch"],
                None if name.endswith("importance") else LOCAL_RATIO, judged=self.judged, missing=missing,
                note=f"{note}; {work.clients} clients x {work.steps} steps x {work.batch_size} images",
                beside=self._of_beside(runs),
            )  # fmt: skip

    def _aggregation(self, chunks: Chunks) -> Iterator[Row]:
        """Times both averages of a full buffer, which replace the server model in place, and one read of the buffer."""
        layout = chunks.method.layout
        buffer, bits = slots(chunks)
        weights = jnp.full(self.work.clients, 1 / self.work.clients, jnp.float32)
        masked = jax.jit(partial(maskfedavg, layout), donate_argnums=0)
        plain = jax.jit(fedavg, donate_argnums=0)
        model = {which: jax.tree.map(jnp.copy, chunks.state.params) for which in ("masked", "plain")}

        def average(which: str, function: Callable[..., Any], *arguments: Any) -> Any:
            model[which] = function(model[which], *arguments)
            return model[which]

        # The reference reads only the float32 values, not the masks, another 3 % that MaskFedAvg reads.
        read = jax.jit(lambda stacks: [jnp.sum(stack) for stack in jax.tree.leaves(stacks)])
        tasks = {
            "maskfedavg": self._timed(partial(average, "masked", masked, buffer, bits, weights)),
            "fedavg": self._timed(partial(average, "plain", plain, buffer, weights)),
            "read": self._timed(partial(read, buffer)),
        }
        runs = alternate({**tasks, **self._beside}, self.repeats, 0.0)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(buffer))
        rate = size / statistics.median(runs["read"]) / 1e9
        for name in ("maskfedavg", "fedavg"):
            yield Row(
                name, runs[name], tasks[name].compile_s(runs[name]), "jitted sum of the buffer, reading it once",
                runs["read"], AGGREGATE_RATIO if name == "maskfedavg" else None, judged=self.judged,
                note=f"{size / 1e6:.1f} MB, read at {rate:.1f} GB/s; {tasks[name].calls} calls a run",
                beside=self._of_beside(runs),
            )  # fmt: skip

    def _evaluation(self, chunks: Chunks) -> Row:
        config, n = self.work.config("prfl"), self.work.test_images
        rng = np.random.default_rng(2)
        images, labels = rng.integers(0, 256, (n, *INPUT_SHAPE), np.uint8), rng.integers(0, CLASSES, n)
        test = make_eval_set(images, labels, config.eval.batch_size)
        evaluate = Evaluator(self.method.model, self.method.loss, "unit", CLASSES, matmul=self.method.matmul)
        call = partial(evaluate, chunks.state.params, test)
        return self._alone("evaluation", call, note=f"{n} images, {test.y.shape[1]} a call, results on the host")

"""The suite `peers` times whole rounds of FedAvg in prfl_jax and in other simulators, on the same workload, in turn.

Each peer is a worker in `scripts/peers/` (its protocol is `Conversation` there). It runs in its own Python environment,
which is made from a requirements file in that folder. No framework is imported here.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prfl_jax.benchmarks.timing import alternate, spread
from prfl_jax.benchmarks.worker import Worker, WorkerFailed, python_path
from prfl_jax.system import provenance

FOLDER = Path(__file__).resolve().parents[2] / "scripts" / "peers"
LOOP, OURS = "torch_loop", "prfl_jax"
PAUSE_S = 0.5  # s; longer than idle threads of any framework spin
METHOD = (
    "Every peer runs in its own process (some start more) with the same images, first server model, local steps and "
    "cohort size. A round is everything from one server model to the next, timed inside the process. All processes are "
    "alive at once and only one works at a time: they take turns, every second turn in reverse order, after one turn "
    "that is discarded. A ratio is to the PyTorch loop in the same turn. start_s is from the start of the process to "
    "the end of its first round; peak memory is the sum of the peaks of its processes. prfl_jax is started twice, the "
    "first time with an empty cache of compiled programs."
)


@dataclasses.dataclass(frozen=True)
class Peer:
    """One simulator.

    Attributes:
      title: its name in the tables.
      worker: its file in `FOLDER`.
      requirements: the file in `FOLDER` that its environment is made from; None: this Python.
      launcher: from the number of cores to the program of the environment that starts the worker, with its flags;
        None: Python.
    """

    title: str
    worker: str
    requirements: str | None
    launcher: Callable[[int], Sequence[str]] | None = None

    def environment(self, envs: Path) -> Path:
        """Returns the folder of its environment."""
        assert self.requirements is not None
        return envs / Path(self.requirements).stem

    def command(self, envs: Path, file: Path, cores: int) -> list[str]:
        """Returns the command line of its worker for the workload in `file`."""
        worker = str(FOLDER / self.worker)
        if self.requirements is None:
            return [sys.executable, worker, str(file)]
        programs = self.environment(envs) / "bin"
        if self.launcher is None:
            return [str(programs / "python"), worker, str(file)]
        name, *flags = self.launcher(cores)
        return [str(programs / name), *flags, worker, str(file)]


def _torchrun(cores: int) -> list[str]:
    return ["torchrun", "--standalone", f"--nproc_per_node={cores}"]


PEERS = {
    LOOP: Peer("PyTorch loop", "torch_loop.py", "torch.txt"),
    "torch_processes": Peer("PyTorch, one process per core", "torch_processes.py", "torch.txt"),
    "pfl": Peer("pfl-research, torchrun, one process per core", "pfl_worker.py", "pfl.txt", _torchrun),
    "flower": Peer("Flower, one Ray actor per core", "flower_worker.py", "flower.txt"),
    "fedjax": Peer("FedJAX", "fedjax_worker.py", "fedjax.txt"),
    OURS: Peer("prfl_jax", "prfl_jax_worker.py", None),
}


@dataclasses.dataclass(frozen=True)
class PeerWork:
    """One workload of FedAvg: network, images, users and local work.

    Attributes:
      convs: (side of the kernel, SAME or VALID, channels, whether a 2x2 max-pool follows) of each convolution.
      model: prfl_jax's name of the network.
      real: the data set that replaces random images on request.
      users, cohort: number of users, and of those that train in a round.
      images: images of each user.
    """

    title: str
    input: tuple[int, int, int]
    convs: tuple[tuple[int, str, int, bool], ...]
    hidden: tuple[int, ...]
    classes: int
    model: str
    real: str
    users: int
    cohort: int
    images: int
    steps: int
    batch_size: int
    lr: float
    test_images: int = 1000

    def net(self) -> dict[str, Any]:
        """Returns the network in the form that the workers read."""
        keys = ("input", "convs", "hidden", "classes", "model")
        return {key: getattr(self, key) for key in keys}

    def params(self) -> dict[str, np.ndarray]:
        """Returns the first server model by `layer/leaf`: kernels uniform within 1 / sqrt(inputs), biases 0."""
        rng, out = np.random.default_rng(2), {}
        height, width, channels = self.input

        def layer(name: str, shape: tuple[int, ...]) -> None:
            bound = 1 / math.sqrt(math.prod(shape[:-1]))
            out[f"{name}/kernel"] = rng.uniform(-bound, bound, shape).astype(np.float32)
            out[f"{name}/bias"] = np.zeros(shape[-1], np.float32)

        for k, (side, padding, features, pool) in enumerate(self.convs):
            layer(f"conv{k}", (side, side, channels, features))
            lost, channels = 0 if padding == "SAME" else side - 1, features
            height, width = height - lost, width - lost
            if pool:
                height, width = height // 2, width // 2
        size = height * width * channels
        for k, units in enumerate([*self.hidden, self.classes]):
            layer(f"dense{k}", (size, units))
            size = units
        return out

    def data(self, real: bool) -> dict[str, np.ndarray]:
        """Returns training and test images with their labels, and `index` `[users, images]`, the images of each user.

        Raises:
          UserError: the real data set is not prepared.
        """
        rng, n = np.random.default_rng(0), self.users * self.images
        if real:
            from prfl_jax import data as data_room
            from prfl_jax.config.defaults import default_config

            cfg = default_config().data
            cfg.name = self.real
            dataset = data_room.load(cfg, 0)
            x, y, x_test, y_test = dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test
            n = min(n, len(x))
            chosen = rng.permutation(len(x))[:n]
            x, y = x[chosen], y[chosen]
            x_test, y_test = x_test[: self.test_images], y_test[: self.test_images]
        else:
            x = rng.integers(0, 256, (n, *self.input), np.uint8)
            y = rng.integers(0, self.classes, n)
            x_test = rng.integers(0, 256, (self.test_images, *self.input), np.uint8)
            y_test = rng.integers(0, self.classes, self.test_images)
        index = np.resize(rng.permutation(n), (self.users, self.images))
        return {"x": x, "y": y.astype(np.int64), "x_test": x_test, "y_test": y_test.astype(np.int64), "index": index}

    def write(self, file: Path, real: bool, cores: int) -> None:
        """Writes the workload to the file that the workers read."""
        options = {
            "cohort": self.cohort, "steps": self.steps, "batch_size": self.batch_size, "lr": self.lr,
            "net": self.net(), "threads": cores,
        }  # fmt: skip
        params = {f"p/{path}": leaf for path, leaf in self.params().items()}
        np.savez(file, **{"options": np.array(json.dumps(options)), **self.data(real), **params})  # type: ignore[arg-type]


_CONV2 = ((5, "SAME", 32, True), (5, "SAME", 64, True))
_VGG11 = tuple(
    (3, "SAME", channels, pool)
    for channels, pool in (
        (64, True), (128, True), (256, False), (256, True), (512, False), (512, True), (512, False), (512, True)
    )
)  # fmt: skip
WORKLOADS = {
    "W1": PeerWork(
        "Conv2, 10 clients x 5 steps x 20", (28, 28, 1), _CONV2, (2048,), 62, "conv2", "mnist_by_writer",
        users=10, cohort=10, images=400, steps=5, batch_size=20, lr=0.1,
    ),
    "W2": PeerWork(
        "pfl-research's benchmark CNN, 50 of 1000 users x 5 steps x 10", (32, 32, 3),
        ((3, "VALID", 32, False), (3, "VALID", 64, True)), (128,), 10, f"{FOLDER / 'benchmark_cnn.py'}:BenchmarkCnn",
        "cifar10", users=1000, cohort=50, images=50, steps=5, batch_size=10, lr=0.1,
    ),
    "W3": PeerWork(
        "VGG-11, 10 clients x 5 steps x 20", (32, 32, 3), _VGG11, (512, 512), 10, "vgg11", "cifar10",
        users=10, cohort=10, images=400, steps=5, batch_size=20, lr=0.1,
    ),
}  # fmt: skip
TINY = dataclasses.replace(
    WORKLOADS["W1"], title="a smoke test", users=4, cohort=2, images=8, steps=2, batch_size=4, test_images=20
)


def make_environment(peer: Peer, envs: Path) -> str | None:
    """Makes a peer's environment if it is missing or outdated; returns why that failed, or None."""
    if peer.requirements is None:
        return None
    folder, done = peer.environment(envs), peer.environment(envs) / "complete"
    wanted = (FOLDER / peer.requirements).read_text()
    if done.exists() and done.read_text() == wanted:
        return None
    shutil.rmtree(folder, ignore_errors=True)
    print(f"making the environment of {peer.title} in {folder}", file=sys.stderr, flush=True)
    install = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "-r", str(FOLDER / peer.requirements)]
    for command in ([sys.executable, "-m", "venv", str(folder)], install):
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            said = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or ["no error message"]
            return f"cannot be installed: {said[0]}"
    done.write_text(wanted)
    return None


class PeerSuite:
    """Measures the rows of the suite.

    Args:
      workloads, peers: names; the PyTorch loop is always among the peers.
      envs: folder of the environments.
      real: whether real images replace random ones.
      repeats: measured rounds.
      small: whether the smoke test `TINY` replaces the workloads.
    """

    def __init__(
        self, workloads: Sequence[str], peers: Sequence[str], envs: Path, real: bool, repeats: int, small: bool = False
    ) -> None:
        self._works = {name: TINY if small else WORKLOADS[name] for name in workloads}
        self._peers = {name: PEERS[name] for name in dict.fromkeys([LOOP, *peers])}
        self._envs, self._real, self._repeats = envs, real, repeats
        self._pause_s = 0.0 if small else PAUSE_S

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yields the rows of each workload as soon as it is measured."""
        missing = {name: make_environment(peer, self._envs) for name, peer in self._peers.items()}
        cores = provenance.cores()
        with tempfile.TemporaryDirectory() as folder:
            for name, work in self._works.items():
                file = Path(folder) / f"{name}.npz"
                work.write(file, self._real, cores)
                cache = {"JAX_COMPILATION_CACHE_DIR": str(Path(folder) / f"compiled-{name}"), **_CACHE_ALL}
                yield from self._workload(name, work, file, cores, dict(missing), cache)

    def _workload(
        self, name: str, work: PeerWork, file: Path, cores: int, missing: dict[str, str | None], cache: dict[str, str]
    ) -> Iterator[dict[str, Any]]:
        workers: dict[str, Worker] = {}
        started: dict[str, dict[str, float]] = {}
        try:
            for key, peer in self._peers.items():
                if missing[key] is not None:
                    continue
                own = {"PYTHONPATH": python_path(), **cache} if key == OURS else {}
                try:
                    if key == OURS:
                        worker, cold = self._started(peer, file, cores, own)
                        worker.close()
                    workers[key], started[key] = self._started(peer, file, cores, own)
                    if key == OURS:
                        started[key]["start_cold_s"] = cold["start_s"]
                except WorkerFailed as why:
                    missing[key] = f"does not run: {why}"
                print(f"{name}: {peer.title}: {missing[key] or 'started'}", file=sys.stderr, flush=True)
            times = self._turns(workers, missing, "round", self._repeats)
            tests = self._turns(workers, missing, "evaluate", max(1, self._repeats // 2))
            for key, peer in self._peers.items():
                row = {"workload": name, "work": work.title, "peer": key, "title": peer.title, "missing": missing[key]}
                if missing[key] is not None or key not in workers:
                    yield {**row, "ratio": None}
                    continue
                loop = (times.get(LOOP, []), tests.get(LOOP, []))
                yield {**row, **_measured(loop, times[key], tests[key], started.get(key, {}), workers[key])}
        finally:
            for worker in workers.values():
                worker.close()

    def _started(
        self, peer: Peer, file: Path, cores: int, environment: dict[str, str]
    ) -> tuple[Worker, dict[str, float]]:
        begun = time.perf_counter()
        worker = Worker(peer.command(self._envs, file, cores), environment=environment)
        try:
            first = worker.ask("round")
        except WorkerFailed:
            worker.close()
            raise
        return worker, {"start_s": time.perf_counter() - begun, "first_round_s": first["seconds"]}

    def _turns(
        self, workers: dict[str, Worker], missing: dict[str, str | None], what: str, repeats: int
    ) -> dict[str, list[float]]:
        """Returns the s of each turn by peer; a worker that fails takes no further turns."""

        def task(key: str) -> Callable[[], float]:
            def run() -> float:
                if missing[key] is not None:
                    return math.nan
                try:
                    return float(workers[key].ask(what)["seconds"])
                except WorkerFailed as why:
                    missing[key] = f"failed: {why}"
                    return math.nan

            return run

        return alternate({key: task(key) for key in workers}, repeats, self._pause_s)


_CACHE_ALL = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}


def _measured(
    loop: tuple[Sequence[float], Sequence[float]],
    times: Sequence[float],
    tests: Sequence[float],
    started: dict[str, float],
    worker: Worker,
) -> dict[str, Any]:
    """Returns the measurements of one peer: s, ratios to the PyTorch loop, MB of memory.

    Args:
      loop: s of each round and of each test of the PyTorch loop.
      times, tests: s of each round and of each test of 1000 images.
      started: s from the start of the process to the end of its first round, and of that round alone.
      worker: the peer's process.
    """
    row = {"unit": "s", **spread(times), **_ratio(times, loop[0], ""), **started}
    row["compile_s"] = max(0.0, started["first_round_s"] - statistics.median(times))
    row |= {"evaluation_s": statistics.median(tests), **_ratio(tests, loop[1], "evaluation_")}
    return {**row, "peak_memory_mb": round(worker.peak_memory_mb(), 1), "about": worker.about}


def _ratio(runs: Sequence[float], loop: Sequence[float], prefix: str) -> dict[str, float | None]:
    """Returns the median, smallest and largest ratio to the loop in the same turn; None if a turn failed."""
    ratios = [mine / theirs for mine, theirs in zip(runs, loop, strict=False)]
    if not ratios or any(math.isnan(ratio) for ratio in ratios):
        return {f"{prefix}ratio": None}
    measured = {"ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}
    return {prefix + key: value for key, value in measured.items()}


def markdown(rows: Sequence[dict[str, Any]], machine: str) -> str:
    """Returns the rows as Markdown, one table for each workload."""
    lines = [machine, ""]
    for name in dict.fromkeys(row["workload"] for row in rows):
        own = [row for row in rows if row["workload"] == name]
        lines += [
            f"**{name}**: {own[0]['work']}",
            "",
            "| | round, s | ratio to the PyTorch loop (least, largest) | test of 1000 images, s | start to first "
            "round, s | compiling, s | peak memory, MB |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in own:
            if row["missing"] is not None:
                lines.append(f"| {row['title']} | {row['missing']} | | | | | |")
                continue
            ratio = "-"
            if row["ratio"] is not None:
                ratio = f"{row['ratio']:.2f} ({row['ratio_min']:.2f}, {row['ratio_max']:.2f})"
            start = f"{row['start_s']:.1f}"
            if "start_cold_s" in row:
                start += f" (nothing compiled yet: {row['start_cold_s']:.1f})"
            lines.append(
                f"| {row['title']} | {row['median']:.3f} | {ratio} | {row['evaluation_s']:.2f} | {start} | "
                f"{row['compile_s']:.1f} | {row['peak_memory_mb']:.0f} |"
            )
        lines.append("")
    return "\n".join(lines)

"""One run through simulated time: plan, run a chunk, evaluate, adapt, checkpoint, report.

Order at the end of windows I, 2I, ...: aggregate, evaluate, decide densities, prune;
then the next window dispatches under the new masks. Evaluations lie on a grid of
simulated seconds: a grid second is answered by the model in force at it.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prfl_jax import environment
from prfl_jax.checkpoint import Checkpoints
from prfl_jax.density import RecoveringDensity
from prfl_jax.engine import State
from prfl_jax.evaluate import EvalSet, Evaluator, Scores
from prfl_jax.interrupt import Interrupted, InterruptGuard
from prfl_jax.models import save_model
from prfl_jax.plan import empty_row, stack_rows
from prfl_jax.planner import PlannedWindow
from prfl_jax.report import MetricsWriter, Progress, build_report, read_metrics, run_figure, write_report
from prfl_jax.simulation import Simulation
from prfl_jax.validate import config_hash, to_dict, validate
from prfl_jax.workdir import Workdir

MAX_ROWS = 64  # rows of a chunk's plan; the executable runs as many as it is told


@dataclasses.dataclass
class Progressed:
    """Where a run stands, besides what is on the device and in the planner; saved with every checkpoint."""

    window: int = 0
    time_s: float = 0.0
    grid: int = 0  # next point of the evaluation grid
    interval_due: bool = False  # window `window` ended an interval that is not decided yet
    updates: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    bytes_client_down: int = 0
    weights: list[float] = dataclasses.field(default_factory=list)  # at the last close
    last_eval: dict[str, Any] | None = None  # of the window it names
    slot_accuracy: dict[str, list[float]] = dataclasses.field(default_factory=dict)  # client -> [window, accuracy]
    ended: dict[str, Any] | None = None
    compile_s: float = 0.0
    steady_s: float = 0.0
    eval_s: float = 0.0
    checkpoint_s: float = 0.0
    total_s: float = 0.0


@dataclasses.dataclass(frozen=True)
class Finished:
    """A finished run: its report, the final server model, its folder."""

    report: dict[str, Any]
    params: Any
    workdir: Path

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws accuracy over simulated time, and the clients' densities under it, as PNG."""
        run_figure(self.report, path)


class Experiment:
    """A config, ready to run.

    Args:
      config: from `load_config` or `default_config`.

    Raises:
      UserError: the config is not possible, or its data cannot be had.
    """

    def __init__(self, config: Any) -> None:
        validate(config)
        self.config = config
        self.simulation = Simulation(config)

    def run(
        self,
        workdir: str | os.PathLike[str],
        *,
        guard: InterruptGuard | None = None,
        progress: bool = True,
        compare: dict[str, dict[str, Any]] | None = None,
    ) -> Finished:
        """Runs to the end, going on from the newest checkpoint in `workdir`.

        Writes `config.json`, `metrics.jsonl`, `report.json`, `figure.png`,
        `final_model.npz` and `checkpoints/`.

        Args:
          guard: asked between pieces of work whether a signal has come.
          compare: reports of other strategies, for this run's report.

        Raises:
          UserError: `workdir` belongs to another config or another process.
          Interrupted: a signal came; a checkpoint has been saved.
        """
        folder = Workdir(workdir, to_dict(self.config), config_hash(self.config))
        try:
            return _Run(self, folder, guard or InterruptGuard(), progress).run(compare)
        finally:
            folder.close()


class _Run:
    """The loop of one `Experiment.run`."""

    def __init__(self, experiment: Experiment, folder: Workdir, guard: InterruptGuard, progress: bool) -> None:
        self.config, self.sim, self.folder, self.guard = experiment.config, experiment.simulation, folder, guard
        self.show = progress
        self.at = Progressed()
        self.evaluator = Evaluator(
            self.sim.method.model,
            self.sim.method.loss,
            self.config.data.normalize,
            self.sim.dataset.num_classes,
            guard.check,
        )
        self.checkpoints = Checkpoints(folder.path, self.config.checkpoint.keep)
        self.metrics = MetricsWriter(folder.path / "metrics.jsonl")
        self.messages: list[str] = []
        self.began = time.monotonic()
        self.saved_at = time.monotonic()
        self.chunk_windows = max(1, self.config.engine.chunk_windows)
        self.longest_step_s = 0.0
        self.arrivals_mean: float | None = None

    # The loop.

    def run(self, compare: dict[str, dict[str, Any]] | None) -> Finished:
        try:
            self._start()
            with self._progress() as self.bar:
                for message in self.messages:
                    self.bar.write(message)
                try:
                    self._loop()
                except Interrupted:
                    self._save()
                    self.checkpoints.wait()
                    raise
            return self._finish(compare)
        finally:
            self.metrics.close()
            self.checkpoints.close()

    def _start(self) -> None:
        """Device data, the executable, and the state: new, or from the newest checkpoint."""
        sim = self.sim
        self.data = sim.device_data()
        self.test, self.signal = sim.eval_sets()
        like = jax.eval_shape(sim.init_state, sim.init_key)
        found = self.checkpoints.restore(like)
        if found is None or found[0] is None:
            self.messages += found[2] if found else []
            self.planner = sim.new_planner()
            self.metrics.truncate_at(0)
            self.state: State = sim.init_state(sim.init_key)
        else:
            state, host, messages = found
            self.messages += messages
            self.at = Progressed(**host["at"])
            self.planner = sim.restored_planner(host["planner"])
            self.metrics.truncate_at(host["metrics_bytes"])
            # copies: the chunk donates these buffers
            self.state = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state)
            self.messages.append(f"going on after window {self.at.window} ({self.at.time_s:.0f} simulated s)")
        if self.at.ended is None:
            begin = time.monotonic()
            plan = stack_rows([empty_row(self.config.clients.number)], MAX_ROWS)
            self.chunk = sim.engine.run_chunk.lower(self.state, self.data, plan, np.int32(0), sim.keys).compile()
            self.at.compile_s += time.monotonic() - begin

    def _progress(self) -> Progress:
        if not self.show:
            return Progress(None, stream=open(os.devnull, "w"), bar=False)  # noqa: SIM115
        config = self.config
        return Progress(config.rounds, config.horizon_s, window=self.at.window, simulated_s=self.at.time_s)

    def _loop(self) -> None:
        at, horizon = self.at, self.config.horizon_s
        while at.ended is None:
            if at.interval_due:
                self._end_interval()
            if at.ended is None:
                upcoming = self.planner.peek()
                past_horizon = horizon is not None and upcoming.end_s > horizon
                if past_horizon or at.window >= self.config.rounds:
                    self._evaluate_grid(horizon if past_horizon else at.time_s, inclusive=True)
                    at.ended = {"how": "horizon" if past_horizon else "rounds", "detail": None, "client": None}
                else:
                    self._evaluate_grid(upcoming.end_s, inclusive=False)
                    self._run_chunk()
            expected = 2 * self.longest_step_s
            if at.ended is None and time.monotonic() - self.saved_at + expected > self.config.checkpoint.every_s:
                self._save()
            if at.ended is None:
                self.guard.check()
        self._final()

    # Windows.

    def _take(self) -> list[PlannedWindow]:
        """The next windows that run in one chunk: up to an interval's end, a grid point, the horizon."""
        config, taken = self.config, []
        rows = 0
        while len(taken) < self.chunk_windows:
            upcoming = self.planner.peek()
            if taken:
                if upcoming.index > config.rounds:
                    break
                if config.horizon_s is not None and upcoming.end_s > config.horizon_s:
                    break
                if self.at.grid * config.eval_every_s < upcoming.end_s:
                    break  # the model at the end of the last window answers this point
                if rows + 2 * config.clients.number + 2 > MAX_ROWS and config.window.dispatch == "on_arrival":
                    break
                if rows + 1 > MAX_ROWS:
                    break
            taken.append(self.planner.take())
            rows += len(taken[-1].rows)
            if taken[-1].window.index % config.density.interval == 0:
                break
        return taken

    def _run_chunk(self) -> None:
        planned = self._take()
        rows = [row for item in planned for row in item.rows]
        losses_by_row: list[np.ndarray] = []
        begin = time.monotonic()
        for first in range(0, len(rows), MAX_ROWS):  # one call, unless one window alone has more rows than that
            part = rows[first : first + MAX_ROWS]
            self.state, losses = self.chunk(
                self.state, self.data, stack_rows(part, MAX_ROWS), np.int32(len(part)), self.sim.keys
            )
            losses_by_row += list(np.asarray(losses)[: len(part)])
        took = time.monotonic() - begin
        self.at.steady_s += took
        self._pace(took, len(planned))
        for item in planned:
            own, losses_by_row = losses_by_row[: len(item.rows)], losses_by_row[len(item.rows) :]
            loss = [float(v) for row, values in zip(item.rows, own, strict=True) for v in values[: row.arrive_count]]
            self._record_window(item, loss)
            if self.at.ended is not None:
                return
        self.arrivals_mean = sum(len(item.window.arrivals) for item in planned) / len(planned)
        self.at.interval_due = self.at.window % self.config.density.interval == 0
        self._show()

    def _pace(self, took: float, windows: int) -> None:
        """The next chunk's length: about `chunk_s` of host time."""
        self.longest_step_s = max(self.longest_step_s, took)
        if not self.config.engine.chunk_windows:
            self.chunk_windows = max(1, min(MAX_ROWS, int(self.config.engine.chunk_s * windows / max(took, 1e-6))))

    def _record_window(self, item: PlannedWindow, loss: list[float]) -> None:
        at, window = self.at, item.window
        at.window, at.time_s = window.index, window.end_s
        at.updates += len(window.arrivals)
        at.bytes_up += window.bytes_up
        at.bytes_down += window.bytes_down
        at.bytes_client_down += window.bytes_client_down
        at.weights = item.weights.tolist()
        self.metrics.write(
            {
                "kind": "window",
                "window": window.index,
                "start_s": window.start_s,
                "end_s": window.end_s,
                "arrivals": [a.client for a in window.arrivals],
                "staleness": list(item.staleness),
                "round_s": [a.round_s for a in window.arrivals],
                "loss": loss,
                "bytes_up": window.bytes_up,
                "bytes_down": window.bytes_down,
                "bytes_client_down": window.bytes_client_down,
                "client_bytes_up": list(item.bytes_up),
                "client_bytes_down": [list(pair) for pair in item.bytes_down],
                "waiting_s": window.waiting_s,
                "percents": item.percents,
            }
        )
        for arrival, value in zip(window.arrivals, loss, strict=True):
            if not math.isfinite(value):
                detail = f"the training loss of client {arrival.client} in window {window.index} is {value}"
                at.ended = {"how": "not_finite", "detail": detail, "client": arrival.client}
                return

    # Evaluation.

    def _curves(self) -> dict[str, tuple[Any, bool]]:
        """The two server models; the flag says whether it must be evaluated on its own."""
        weights = jnp.asarray(self.at.weights or np.zeros(self.config.clients.number), jnp.float32)
        differs = self.config.aggregation.name != "fedavg"
        buffered = self.sim.fedavg_model(self.state, weights) if differs else self.state.params
        return {"mask": (self.state.params, True), "fedavg": (buffered, differs)}

    def _score(self, data: EvalSet) -> dict[str, Scores]:
        begin = time.monotonic()
        scores: dict[str, Scores] = {}
        for name, (params, own) in self._curves().items():
            scores[name] = self.evaluator(params, data) if own else scores["mask"]
        self.at.eval_s += time.monotonic() - begin
        return scores

    def _evaluate_grid(self, until_s: float, inclusive: bool) -> None:
        """Answers the grid points before `until_s` with the present model, on test data."""
        at, every = self.at, self.config.eval_every_s
        while (t_s := at.grid * every) < until_s or (inclusive and t_s == until_s):
            if at.last_eval is None or at.last_eval["window"] != at.window:
                scores = self._score(self.test)
                at.last_eval = {
                    "window": at.window,
                    **{name: {"accuracy": s.accuracy, "loss": s.mean_loss} for name, s in scores.items()},
                }
            self.metrics.write(
                {
                    "kind": "eval",
                    "t_s": t_s,
                    "model_s": at.time_s,
                    **at.last_eval,
                    "updates": at.updates,
                    "bytes_up": at.bytes_up,
                    "bytes_down": at.bytes_down,
                    "bytes_client_down": at.bytes_client_down,
                    "host_s": at.compile_s + at.steady_s + at.eval_s,
                }
            )
            at.grid += 1
            self._show()

    def _end_interval(self) -> None:
        """Algorithm 1, lines 6-24: early stopping of clients and server, densities, pruning."""
        at, policy = self.at, self.planner.policy
        clients = self.config.clients.number
        client_accuracy: np.ndarray | None = None
        server_accuracy: float | None = None
        begin = time.monotonic()
        if self.signal is not None:
            if isinstance(policy, RecoveringDensity):
                client_accuracy = self._client_accuracy(self.signal)
            params, _ = self._curves()["fedavg"]
            server_accuracy = self.evaluator(params, self.signal).accuracy
        at.eval_s += time.monotonic() - begin
        decision = policy.decide(client_accuracy, server_accuracy)
        self.state, costs = self.sim.prune(self.state, decision.percents)
        self.planner.set_costs(costs)
        at.interval_due = False
        self.metrics.write(
            {
                "kind": "interval",
                "window": at.window,
                "t_s": at.time_s,
                "percents": decision.percents,
                "min_densities": decision.min_densities,
                "mean_times_s": [None if math.isnan(t) else t for t in decision.mean_times.tolist()],
                "client_accuracy": [None] * clients
                if client_accuracy is None
                else [None if math.isnan(a) else a for a in client_accuracy.tolist()],
                "server_accuracy": server_accuracy,
                "triggered": decision.triggered,
                "stop": decision.stop,
            }
        )
        self.longest_step_s = max(self.longest_step_s, time.monotonic() - begin)
        if decision.stop and self.config.stop_early:
            self._evaluate_grid(at.time_s, inclusive=True)
            at.ended = {"how": "stop_rule", "detail": None, "client": None}

    def _client_accuracy(self, data: EvalSet) -> np.ndarray:
        """Accuracy of the model in each slot `[M]`, NaN for an empty one; a slot that stayed is not evaluated again."""
        out = np.full(self.config.clients.number, np.nan)
        for client, filled_in in enumerate(self.planner.slot_windows()):
            if not filled_in:
                continue
            known = self.at.slot_accuracy.get(str(client))
            if known is None or known[0] != filled_in:
                known = [filled_in, self.evaluator.client(self.state.buffer, client, data).accuracy]
                self.at.slot_accuracy[str(client)] = known
            out[client] = known[1]
        return out

    # Ends.

    def _final(self) -> None:
        """Closing records: final scores per class and client, and how the run ended."""
        at = self.at
        assert at.ended is not None
        classes = self.sim.dataset.num_classes
        mixes = [np.bincount(self.sim.dataset.y_train[own], minlength=classes) for own in self.sim.split.clients]
        record: dict[str, Any] = {"kind": "final", "window": at.window, "t_s": at.time_s}
        for name, scores in self._score(self.test).items():
            own = [scores.under(mix) for mix in mixes]
            worst = min((a, c) for c, a in enumerate(own) if a is not None)
            record[name] = {
                "accuracy": scores.accuracy,
                "loss": scores.mean_loss,
                "per_class": scores.per_class(),
                "worst_client": {"client": worst[1], "accuracy": worst[0]},
                "per_client": own,
            }
        self._save()  # before the closing records: a run that is started again writes them again
        self.metrics.write(record)
        self.metrics.write({"kind": "end", "window": at.window, **at.ended})
        self.metrics.sync()

    def _save(self) -> None:
        begin = time.monotonic()
        self.at.total_s += begin - self.began
        self.began = begin
        self.metrics.sync()
        self.checkpoints.save(
            self.state,
            {
                "at": dataclasses.asdict(self.at),
                "planner": self.planner.to_state(),
                "metrics_bytes": self.metrics.bytes_written(),
            },
        )
        self.saved_at = time.monotonic()
        self.at.checkpoint_s += self.saved_at - begin

    def _finish(self, compare: dict[str, dict[str, Any]] | None) -> Finished:
        """The final model, the report and the figure."""
        folder = self.folder.path
        self.checkpoints.wait()
        params = jax.tree.map(np.array, self.state.params)
        save_model(str(folder / "final_model.npz"), params)
        report = self.report(compare)
        write_report(folder / "report.json", report)
        run_figure(report, folder / "figure.png")
        return Finished(report, params, folder)

    def report(self, compare: dict[str, dict[str, Any]] | None) -> dict[str, Any]:
        """`report.json` from the records and what the host knows."""
        at, method, config = self.at, self.sim.method, self.config
        return build_report(
            config=to_dict(config),
            config_hash=config_hash(config),
            commit=environment.commit(),
            versions=environment.versions(),
            device=environment.device(),
            flags=environment.flags(),
            seed=config.seed,
            split_summary={**self.sim.split.summary, "source": self.sim.dataset.source},
            model={
                "name": method.model.name,
                "parameters": method.size.total,
                "size_mb": method.size.total * method.size.bytes_per_value / 1e6,
            },
            records=read_metrics(self.folder.path / "metrics.jsonl"),
            thresholds=tuple(config.eval.thresholds),
            headline=config.eval.model,
            host={
                "compile_s": at.compile_s,
                "steady_s": at.steady_s,
                "eval_s": at.eval_s,
                "checkpoint_s": at.checkpoint_s,
                "total_s": at.total_s,
                "clients_axis": method.clients_axis,
            },
            peak_memory_mb=environment.peak_memory_mb(),
            clients=config.clients.number,
            compare=compare,
        )

    def _show(self) -> None:
        at = self.at
        accuracy = None if at.last_eval is None else at.last_eval[self.config.eval.model]["accuracy"]
        self.bar.update(
            at.window,
            at.time_s,
            accuracy=accuracy,
            arrivals_per_window=self.arrivals_mean,
            percents=self.planner.policy.percents.tolist(),
        )

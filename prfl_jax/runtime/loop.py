"""A run through simulated time: plan, run a chunk, evaluate, adapt, checkpoint.

Order at the end of windows I, 2I, ...: aggregate, evaluate, decide densities, prune;
then the next window dispatches under the new masks. Evaluations lie on a grid of
simulated seconds: a grid second is answered by the model in force at it, so methods
with windows of different length are read at the same times.
"""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from prfl_jax.clock import after, find_dispatch_rule
from prfl_jax.config.defaults import ENDLESS
from prfl_jax.engine.engine import ChunkOutput, State
from prfl_jax.engine.evaluate import EvalSet, Scores
from prfl_jax.engine.plan import MAX_ROWS, stack_rows
from prfl_jax.engine.planner import PlannedWindow
from prfl_jax.models.variables import whole
from prfl_jax.report import MetricsWriter, Progress
from prfl_jax.robustness.update_filter import REJECTED, TAKEN
from prfl_jax.runtime.checkpoint import SharedCheckpoints, Snapshot
from prfl_jax.runtime.chunk_sizer import ChunkSizer, work
from prfl_jax.runtime.records import final_record, interval_record, merge, window_record
from prfl_jax.runtime.run_state import RunState
from prfl_jax.runtime.scoring import Scorer
from prfl_jax.runtime.simulation import Simulation
from prfl_jax.runtime.workdir import Scratch, Workdir
from prfl_jax.system import console, multi_process
from prfl_jax.system.environment import machine_changes, numeric_machine
from prfl_jax.system.errors import NobodyLeft, UserError
from prfl_jax.system.host_timer import HostTimer
from prfl_jax.system.jax_settings import check_settings, settings
from prfl_jax.system.signals import Interrupted, InterruptGuard

Watch = Callable[[dict[str, Any]], None] | None  # told of each record
FORMAT = 7  # of a checkpoint's host values
SLOW_S = 4.0  # host seconds: a signal does not wait for a chunk that may take longer
POLL_S = 0.02
MOST_POINTS = 100_000  # of the evaluation grid within one window


class Loop:
    """Runs a simulation in a folder; `state`, `at`, `scorer` and `time` tell the outcome.

    Args:
      workdir: locked.
      guard: asked between pieces of work whether a signal has come.
      progress: show a bar on stderr.
    """

    def __init__(
        self,
        simulation: Simulation,
        workdir: Workdir | Scratch,
        guard: InterruptGuard,
        progress: bool,
        watch: Watch = None,
    ) -> None:
        self._watch = watch
        self.sim, self.config, self.guard = simulation, simulation.config, guard
        self.at, self.time = RunState(), HostTimer()
        self._progress, self._folder = progress and multi_process.leads(), workdir.path
        self.scorer = Scorer(simulation, self._check)
        self._checkpoints = SharedCheckpoints(workdir.path, self.config.checkpoint.keep, workdir.bucket)
        self._metrics = MetricsWriter(workdir.path / "metrics.jsonl")
        self._counted_at = self._saved_at = time.monotonic()
        self._chunk_sizer = ChunkSizer(self.config.engine.chunk_s)
        self._longest_step_s = 0.0
        self._kept: Snapshot | None = None  # from before the chunk that runs, where that may take long
        self._arrivals_mean: float | None = None

    def run(self) -> None:
        """To the end.

        Raises:
          Interrupted: a signal came; a checkpoint was saved.
        """
        try:
            with self.guard.nothing_to_save():
                messages = self._start()
            with self._make_progress() as self._bar:
                for message in messages:
                    self._bar.write(message)
                try:
                    while self.at.ended is None:
                        self._step()
                    self._close_records()
                except Interrupted:
                    self._save(self._kept)
                    self._checkpoints.wait()
                    raise
        finally:
            self._metrics.close()
            self._checkpoints.close()

    def _start(self) -> list[str]:
        """Device data, the state (new, or from the newest checkpoint), the executable; messages for the user."""
        sim = self.sim
        self._data = sim.device_data()
        self._test, self._signal = sim.eval_sets()
        found = self._checkpoints.restore(sim.saved_shapes(), self._misses)
        messages = found.messages
        if (
            not self._progress and multi_process.leads()
        ):  # nobody else says it: one of several experiments, or of a script
            for message in messages:
                console.say(f"{self._folder}: {message}")
        if found.state is None:
            self.planner = sim.new_planner()
            self._metrics.truncate_at(0)
            with self.time.spent("steady"):
                self.state: State = jax.block_until_ready(sim.init_state(sim.init_key))
        else:
            messages = [*messages, *self._check_same_run(found.host)]
            self.at = RunState(**found.host["at"])
            self.time = HostTimer(found.host["seconds"])
            self.planner = sim.restored_planner(found.host["planner"])
            if multi_process.leads():
                self._metrics.truncate_at(found.host["metrics_bytes"])
            self.state = sim.to_devices(found.state)
            messages = [*messages, f"going on after window {self.at.window} ({self.at.time_s:,.0f} simulated s)"]
        for data in (self._test, self._signal):
            if data is not None:
                with self.time.spent("compile"):
                    sim.evaluator.warm_up(whole(self.state.params, self.state.fixed), data)
        if self.at.ended is None:
            with self.time.spent("compile"):
                self._chunk = sim.executable(self.state, self._data)
        return messages

    def _check_same_run(self, host: dict[str, Any]) -> list[str]:
        """Raises UserError where a checkpoint's run cannot go on here; says what else may move the last bits."""
        if host.get("format") != FORMAT:
            raise UserError("--workdir: its checkpoints are of another version of prfl_jax; use a new folder")
        check_settings(host.get("settings", {}))
        if host["data_crc32"] != self.sim.data_crc32:
            raise UserError(
                f"config.data.name={self.config.data.name!r}: its images or labels, or a file that the config "
                "names, are not those this --workdir began with; use the same, or a new --workdir"
            )
        return machine_changes(host.get("machine", {}), numeric_machine())

    def _misses(self, host: dict[str, Any]) -> str:
        return self._metrics.misses(host.get("metrics_bytes", 0), host.get("metrics_crc32"))

    def _check(self) -> None:
        """In the middle of a piece of work a signal ends a run of one process only: the others would wait for it."""
        if multi_process.alone():
            self.guard.check()

    def _check_all(self) -> None:
        """Between pieces of work: a signal to any process ends all."""
        if multi_process.alone():
            self.guard.check()
        elif multi_process.any_of(self.guard.came):
            raise Interrupted(signal.SIGTERM)

    def _write(self, record: dict[str, Any]) -> None:
        """The next record of the run."""
        self._metrics.write(record)
        if self._watch is not None:
            self._watch(record)

    def _make_progress(self) -> Progress:
        config = self.config
        windows = None if config.rounds >= ENDLESS else config.rounds
        stream = None if self._progress else open(os.devnull, "w")  # noqa: SIM115 - closed with the process
        return Progress(windows, config.horizon_s, window=self.at.window, simulated_s=self.at.time_s, stream=stream)

    def _step(self) -> None:
        """One piece of work, with a checkpoint where one is due."""
        at, horizon, begin = self.at, self.config.horizon_s, time.monotonic()
        if at.interval_due:
            self._end_interval()
        else:
            upcoming_s = self._next_end_s()
            past_horizon = horizon is not None and after(upcoming_s, horizon)
            if past_horizon or at.window >= self.config.rounds:
                self._evaluate_grid(horizon if past_horizon else at.time_s, inclusive=True)
                at.ended = at.ended or {"how": "horizon" if past_horizon else "rounds", "detail": None, "client": None}
                return
            self._evaluate_grid(upcoming_s, inclusive=False)
            if at.ended is None:
                self._run_chunk()
        self._check_all()
        now = time.monotonic()
        self._longest_step_s = max(self._longest_step_s, now - begin)
        # early enough that the next step, however long, does not overrun; but not after every one
        every_s = self.config.checkpoint.every_s
        if multi_process.broadcast(now - self._saved_at > max(every_s / 2, every_s - 1.5 * self._longest_step_s)):
            self._save()

    # Windows.

    def _next_end_s(self) -> float:
        """End of the next window, simulated s; infinite if nobody will ever be there for it, but the run has an end."""
        try:
            return self.planner.peek().end_s
        except NobodyLeft:
            if self.config.horizon_s is None and self.at.window < self.config.rounds:
                raise
            return math.inf

    def _take(self) -> list[PlannedWindow]:
        """The next windows of one chunk: up to an interval's end, a grid point, the horizon, the plan's length."""
        config = self.config
        taken = [self.planner.take()]
        rows, amount = len(taken[0].rows), work(taken[0].window)
        while not self.planner.policy.decides_after(taken[-1].window.index):
            try:
                upcoming = self.planner.peek()
            except NobodyLeft:  # the run ends after what is planned
                break
            amount += work(upcoming)
            fixed = config.engine.chunk_windows
            if len(taken) >= fixed if fixed else not self._chunk_sizer.fits(amount):
                break
            over = config.horizon_s is not None and after(upcoming.end_s, config.horizon_s)
            # the model at the end of the last window answers a grid point before the next close
            grid_point = after(upcoming.end_s, self.at.grid * config.eval_every_s)
            # a window has at most a row for each arrival and two more
            on_arrival = find_dispatch_rule(config.window.dispatch).on_arrival
            full = rows + 1 + (len(upcoming.arrivals) + 1 if on_arrival else 0) > MAX_ROWS
            if over or grid_point or full or upcoming.index > config.rounds:
                break
            taken.append(self.planner.take())
            rows += len(taken[-1].rows)
        return taken

    def _run_chunk(self) -> None:
        before = self._host_state()
        planned = self._take()
        amount = sum(work(item.window) for item in planned)
        # A device call cannot be stopped: where it may take long, a signal saves what was there before it.
        if multi_process.alone() and self._chunk_sizer.at_most_s(amount) > SLOW_S:
            self._kept = self._snapshot(before)
        rows = [row for item in planned for row in item.rows]
        seen: list[ChunkOutput] = []
        begin, waited_s = time.monotonic(), 0.0
        with self.time.spent("steady"):
            for first in range(0, len(rows), MAX_ROWS):  # one call, unless one window alone has more rows
                part = rows[first : first + MAX_ROWS]
                plan = stack_rows(part, MAX_ROWS)
                self.state, result = self._chunk(
                    self.state, self._data, self.sim.device_plan(plan), np.int32(len(part)), self.sim.keys
                )
                waited_s += self.sim.waited_s()
                seen += self.sim.by_row(self._wait_for(result), plan)[: len(part)]
        self._kept = None
        self.time.move(waited_s, "steady", "waiting")
        self._chunk_sizer.observe(
            amount, multi_process.broadcast(time.monotonic() - begin - waited_s)
        )  # all size the next chunk alike
        for item in planned:
            own, seen = seen[: len(item.rows)], seen[len(item.rows) :]
            self._record_window(item, merge(own))
            if self.at.ended is not None:
                return
        self._arrivals_mean = sum(len(item.window.arrivals) for item in planned) / len(planned)
        self.at.interval_due = self.planner.policy.decides_after(self.at.window)
        self._show()

    def _wait_for(self, result: ChunkOutput) -> ChunkOutput:
        """The values; raises `Interrupted` if a signal comes first and there is something to save instead."""
        while self._kept is not None and not result.losses.is_ready():
            if self.guard.came:
                self.guard.check()
            time.sleep(POLL_S)
        return jax.tree.map(multi_process.fetch, result)

    def _record_window(self, item: PlannedWindow, seen: ChunkOutput) -> None:
        at, window = self.at, item.window
        at.window, at.time_s = window.index, window.end_s
        at.updates += len(window.arrivals)
        at.bytes_up += window.bytes_up
        at.bytes_down += window.bytes_down
        at.bytes_client_down += window.bytes_client_down
        at.weights = item.weights.tolist()
        self._write(window_record(item, seen))
        verdicts = seen.verdicts or [TAKEN] * len(seen.losses)
        for arrival, value, verdict in zip(window.arrivals, seen.losses, verdicts, strict=True):
            if not math.isfinite(value) and verdict != REJECTED:  # what the server rejects harms nobody
                detail = f"the training loss of client {arrival.client} in window {window.index} is {value}"
                at.ended = {"how": "not_finite", "detail": detail, "client": arrival.client}
                return

    # Evaluation.

    def _score(self, data: EvalSet) -> dict[str, Scores]:
        """Both server models."""
        with self.time.spent("eval"):
            scores = self.scorer.both(self.state, self.at.weights, data)
        for name, score in scores.items():
            if not math.isfinite(score.mean_loss):
                detail = (
                    f"the {name} server model's loss on test data after window {self.at.window} is {score.mean_loss}"
                )
                self.at.ended = {"how": "not_finite", "detail": detail, "client": None}
        return scores

    def _evaluate_grid(self, until_s: float, inclusive: bool) -> None:
        """Answers the grid points before `until_s` with the present model, on test data; ties are at it."""
        at, every = self.at, self.config.eval_every_s
        if until_s - at.grid * every > MOST_POINTS * every:
            raise UserError(
                f"config.eval_every_s={every}: allowed is more: window {at.window + 1}, which ends at {until_s:g} s, "
                f"has over {MOST_POINTS:,} points of the grid"
            )
        while after(until_s, t_s := at.grid * every) or (inclusive and not after(t_s, until_s)):
            if at.last_eval is None or at.last_eval["window"] != at.window:
                scores = self._score(self._test)
                at.last_eval = {
                    "window": at.window,
                    **{name: {"accuracy": s.accuracy, "loss": s.mean_loss} for name, s in scores.items()},
                }
            record = {
                "kind": "eval",
                "t_s": t_s,
                "model_s": min(at.time_s, t_s),
                **at.last_eval,
                **{key: getattr(at, key) for key in ("updates", "bytes_up", "bytes_down", "bytes_client_down")},
                "host_s": sum(self.time.seconds.values()),
            }
            at.grid += 1
            self._write(record)
            self._show()
            self._check()

    def _end_interval(self) -> None:
        """Algorithm 1, lines 6-24: early stopping of clients and server, densities, pruning."""
        at, policy = self.at, self.planner.policy
        client_accuracy: np.ndarray | None = None
        server_accuracy: float | None = None
        if self._signal is not None:
            with self.time.spent("eval"):
                if policy.recovers:
                    filled = self.planner.slot_windows()
                    client_accuracy = self.scorer.clients(self.state, filled, at.slot_accuracy, self._signal)
                server_accuracy = self.scorer.fedavg(self.state, at.weights, self._signal).accuracy
        decision = policy.decide(client_accuracy, server_accuracy)
        at.interval_due = False
        self._write(interval_record(at.window, at.time_s, decision, client_accuracy, server_accuracy))
        try:
            with self.time.spent("prune"):
                self.state, costs = self.sim.prune(self.state, decision.density_pct)
        except FloatingPointError as error:
            at.ended = {"how": "not_finite", "detail": f"{error} after window {at.window}", "client": None}
            return
        self.planner.set_costs(costs)
        if decision.stop and self.config.stop_early:
            self._evaluate_grid(at.time_s, inclusive=True)
            at.ended = at.ended or {"how": "stop_rule", "detail": None, "client": None}

    # Ends and checkpoints.

    def _close_records(self) -> None:
        """How the run ended, with final scores by class and client (none where a loss was not finite)."""
        at, sim = self.at, self.sim
        assert at.ended is not None
        record = None
        if at.ended["how"] != "not_finite":
            classes = sim.dataset.num_classes
            mixes = [np.bincount(sim.dataset.y_train[own], minlength=classes) for own in sim.split.clients]
            record = final_record(at.window, at.time_s, self._score(self._test), mixes)
            if at.ended["how"] == "not_finite":
                record = None
        self._save()  # before the closing records: a run that is started again writes them again
        self._checkpoints.wait()
        if record is not None:
            self._metrics.write(record)
        self._metrics.write({"kind": "end", "window": at.window, **at.ended})
        self._metrics.sync()

    def _host_state(self) -> dict[str, Any]:
        """Everything besides the device's state: position, planner, length of the metrics file."""
        now = time.monotonic()
        self.at.total_s += now - self._counted_at
        self._counted_at = now
        return {
            "format": FORMAT,
            "at": dataclasses.asdict(self.at),
            "seconds": dict(self.time.seconds),
            "planner": self.planner.to_state(),
            "metrics_bytes": self._metrics.bytes_written(),
            "metrics_crc32": self._metrics.crc32(),
            "data_crc32": self.sim.data_crc32,
            "settings": settings(),
            "machine": numeric_machine(),
        }

    def _snapshot(self, host: dict[str, Any]) -> Snapshot:
        with self.time.spent("checkpoint"):
            return Snapshot(self.sim.to_host(self.state), host)

    def _save(self, snapshot: Snapshot | None = None) -> None:
        """A checkpoint; of what there is now, unless an earlier snapshot is given."""
        snapshot = snapshot or self._snapshot(self._host_state())
        with self.time.spent("checkpoint"):
            self._metrics.sync()
            self._checkpoints.save(snapshot)
        self._saved_at = time.monotonic()

    def _show(self) -> None:
        at = self.at
        self._bar.update(
            at.window,
            at.time_s,
            accuracy=None if at.last_eval is None else at.last_eval[self.config.eval.model]["accuracy"],
            model=None if self.scorer.one_model else self.config.eval.model,
            arrivals_per_window=self._arrivals_mean,
            density_pct=self.planner.policy.density_pct.tolist(),
        )

"""A run through simulated time: plan, run a chunk, evaluate, decide densities, save a checkpoint.

The order at the end of windows I, 2I, ...: aggregate, evaluate, decide densities, prune; then the next window
dispatches under the new masks. `chunk_runner.py` runs windows, `evaluation_grid.py` evaluates on test data,
`density_decision.py` ends an interval; this module says which of them is next, and saves.
"""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import time
from typing import Any

import jax

from prfl_jax.clock import after
from prfl_jax.config.defaults import ENDLESS
from prfl_jax.engine.widths import width_changes
from prfl_jax.models.variables import whole
from prfl_jax.report import MetricsWriter, Progress
from prfl_jax.report.metric import Headline
from prfl_jax.runtime.active_run import ActiveRun, Watch
from prfl_jax.runtime.checkpoint import SharedCheckpoints, Snapshot
from prfl_jax.runtime.chunk_runner import ChunkRunner
from prfl_jax.runtime.density_decision import change_masks, decide_densities
from prfl_jax.runtime.evaluation_grid import EvaluationGrid
from prfl_jax.runtime.initial_pruning import prune_initially
from prfl_jax.runtime.records import final_record, own_models
from prfl_jax.runtime.run_state import RunState
from prfl_jax.runtime.simulation import Simulation
from prfl_jax.runtime.workdir import Scratch, Workdir
from prfl_jax.system import console, multi_process
from prfl_jax.system.environment import machine_changes, numeric_machine
from prfl_jax.system.errors import NobodyLeft, UserError
from prfl_jax.system.host_timer import HostTimer
from prfl_jax.system.jax_settings import check_settings, settings
from prfl_jax.system.signals import Interrupted, InterruptGuard

FORMAT = 13  # of a checkpoint's host values


class Loop:
    """Runs a simulation in a folder; `active` tells the outcome.

    Args:
      simulation: its parts.
      workdir: locked.
      guard: asked between pieces of work whether a signal has come.
      progress: whether a bar is shown on stderr.
      watch: called with each record.
    """

    def __init__(
        self,
        simulation: Simulation,
        workdir: Workdir | Scratch,
        guard: InterruptGuard,
        progress: bool,
        watch: Watch = None,
    ) -> None:
        self._metrics = MetricsWriter(workdir.path / "metrics.jsonl")
        self.active = ActiveRun(simulation, guard, self._metrics, watch)
        self.config, self._metric = simulation.config, simulation.method.task.metric
        self._grid = EvaluationGrid(self.active, self._show)
        self._chunks = ChunkRunner(self.active, self._host_state, self._snapshot)
        self._progress, self._folder = progress and multi_process.leads(), workdir.path
        self._checkpoints = SharedCheckpoints(workdir.path, self.config.checkpoint.keep, workdir.bucket)
        self._counted_at = self._saved_at = time.monotonic()
        self._longest_step_s = 0.0

    def run(self) -> None:
        """Runs to the end.

        Raises:
          Interrupted: a signal came; a checkpoint was saved.
        """
        active = self.active
        try:
            with active.guard.nothing_to_save():
                messages = self._start()
            with self._make_progress() as self._bar:
                for message in messages:
                    self._bar.write(message)
                try:
                    while active.at.ended is None:
                        self._step()
                    self._close_records()
                except Interrupted:
                    self._save(self._chunks.kept)
                    self._checkpoints.wait()
                    raise
        finally:
            self._metrics.close()
            self._checkpoints.close()

    def _start(self) -> list[str]:
        """Puts data and state (new, or of the newest checkpoint) on the devices, and compiles.

        Returns:
          Messages for the user.
        """
        active, sim = self.active, self.active.sim
        active.data = sim.device_data()
        active.test, active.signal = sim.eval_sets()
        found = self._checkpoints.restore(sim.saved_shapes(), self._misses)
        messages = found.messages
        if not self._progress and multi_process.leads():  # no bar shows them: one of several experiments, or a script's
            for message in messages:
                console.say(f"{self._folder}: {message}")
        if found.state is None:
            active.planner, active.masks = sim.new_planner(), sim.masks()
            if active.masks is not None:
                active.planner.set_costs(active.masks.costs())
            self._metrics.truncate_at(0)
            with active.time.spent("steady"):
                active.state = jax.block_until_ready(sim.init_state(sim.init_key))
        else:
            messages = [*messages, *self._check_same_run(found.host)]
            active.at = RunState(**found.host["at"])
            active.time = HostTimer(found.host["seconds"])
            active.planner, active.masks = sim.restored_planner(found.host["planner"]), sim.masks(found.host["masks"])
            if multi_process.leads():
                self._metrics.truncate_at(found.host["metrics_bytes"])
            active.state = sim.to_devices(found.state)
            messages = [*messages, f"resumed after window {active.at.window} ({active.at.time_s:,.0f} simulated s)"]
        for data in filter(None, (active.test, active.signal)):
            with active.time.spent("compile"):
                sim.evaluator.warm_up(whole(active.state.params, active.state.fixed), data)
        if active.at.ended is None:
            self._chunks.compile()
        return messages

    def _check_same_run(self, host: dict[str, Any]) -> list[str]:
        """Checks that a checkpoint's run can be resumed here.

        Returns:
          What has changed since and may move the last bits, in words.

        Raises:
          UserError: another version, other JAX settings or other data.
        """
        if host.get("format") != FORMAT:
            raise UserError("--workdir: its checkpoints are of another version of prfl_jax; use a new folder")
        check_settings(host.get("settings", {}))
        if host["data_crc32"] != self.active.sim.data_crc32:
            raise UserError(
                f"config.data.name={self.config.data.name!r}: its samples or targets, or a file that the config "
                "names, are not those this --workdir began with; use the same, or a new --workdir"
            )
        shares = self.active.sim.method.shares
        widths = width_changes(host.get("widths", shares), shares)
        return [*machine_changes(host.get("machine", {}), numeric_machine()), *widths]

    def _misses(self, host: dict[str, Any]) -> str:
        return self._metrics.misses(host.get("metrics_bytes", 0), host.get("metrics_crc32"))

    def _check_all(self) -> None:
        """Between pieces of work: a signal to any process ends all."""
        if multi_process.alone():
            self.active.guard.check()
        elif multi_process.any_of(self.active.guard.came):
            raise Interrupted(signal.SIGTERM)

    def _make_progress(self) -> Progress:
        config, at = self.config, self.active.at
        stream = None if self._progress else open(os.devnull, "w")  # noqa: SIM115 - closed with the process
        return Progress(
            None if config.rounds >= ENDLESS else config.rounds, config.horizon_s, window=at.window,
            simulated_s=at.time_s, stream=stream, metric=Headline.of_task(self._metric),
        )  # fmt: skip

    def _step(self) -> None:
        """Does one piece of work, and saves a checkpoint where one is due."""
        at, horizon, begin = self.active.at, self.config.horizon_s, time.monotonic()
        if at.interval_due or at.masks_due:
            self._end_interval()
        elif self.active.masks is not None and self.active.masks.first_rounds:
            prune_initially(self.active, self._grid)
        else:
            self._chunks.prepare()
            upcoming_s = self._next_end_s()
            past_horizon = horizon is not None and after(upcoming_s, horizon)
            if past_horizon or at.window >= self.config.rounds:
                self._grid.answer(horizon if past_horizon else at.time_s, inclusive=True)
                self.active.end("horizon" if past_horizon else "rounds")
                return
            self._grid.answer(upcoming_s, inclusive=False)
            if at.ended is None:
                self._chunks.run_chunk()
                self._show()
        self._check_all()
        now = time.monotonic()
        self._longest_step_s = max(self._longest_step_s, now - begin)
        # Early enough that the next step, however long, does not overrun; but not after every one.
        every_s = self.config.checkpoint.every_s
        if multi_process.broadcast(now - self._saved_at > max(every_s / 2, every_s - 1.5 * self._longest_step_s)):
            self._save()

    def _next_end_s(self) -> float:
        """End of the next window, simulated s; infinite if all clients have left for good and the run has an end."""
        try:
            with self.active.time.spent("plan"):
                return self.active.planner.peek().end_s
        except NobodyLeft:
            if self.config.horizon_s is None and self.active.at.window < self.config.rounds:
                raise
            return math.inf

    def _end_interval(self) -> None:
        """Decides densities; ends the run where the stop rule holds and `stop_early` is set."""
        at = self.active.at
        stops = at.interval_due and decide_densities(self.active) and self.config.stop_early
        if at.masks_due:
            change_masks(self.active)
            self._chunks.compile()  # which does nothing but at the end of the initial stage
        if stops:
            self._grid.answer(at.time_s, inclusive=True)
            self.active.end("stop_rule")

    def _close_records(self) -> None:
        """Writes how the run ended, and final scores by class and client unless a loss was not finite."""
        active, sim = self.active, self.active.sim
        at = active.at
        assert at.ended is not None
        record = None
        if at.ended["how"] != "not_finite":
            task = sim.method.task
            mixes = [sim.dataset.labels(own) for own in sim.split.clients] if task.by_label else []
            scores = active.test_scores()
            if all(math.isfinite(score.mean_loss) for score in scores.values()):
                record = final_record(at.window, at.time_s, scores, mixes, task)
                if own := active.own_scores():
                    record["own_models"] = own_models(own, [len(rows) for rows in sim.split.clients], mixes)
        self._save()  # before the closing records: a run that is started again writes them again
        self._checkpoints.wait()
        if record is not None:
            self._metrics.write(record)
        self._metrics.write({"kind": "end", "window": at.window, **at.ended})
        self._metrics.sync()

    def _host_state(self) -> dict[str, Any]:
        """What changes in a run besides the device state: position, planner, length of the metrics file."""
        active, now = self.active, time.monotonic()
        active.at.total_s += now - self._counted_at
        self._counted_at = now
        with active.time.spent("checkpoint"):
            return {
                "at": dataclasses.asdict(active.at),
                "seconds": dict(active.time.seconds),
                "planner": active.planner.to_state(),
                "masks": None if active.masks is None else active.masks.to_state(),
                "metrics_bytes": self._metrics.bytes_written(),
                "metrics_crc32": self._metrics.crc32(),
            }

    def _snapshot(self, host: dict[str, Any]) -> Snapshot:
        """A checkpoint of the device state as it is now, with the host's part and what the run depends on.

        The latter costs ms, so it is not part of `_host_state`, which is called before every chunk.
        """
        sim = self.active.sim
        with self.active.time.spent("checkpoint"):
            fixed = {
                "format": FORMAT,
                "data_crc32": sim.data_crc32,
                "settings": settings(),
                "machine": numeric_machine(),
                "widths": list(sim.method.shares),
            }
            return Snapshot(sim.to_host(self.active.state), {**fixed, **host})

    def _save(self, snapshot: Snapshot | None = None) -> None:
        """Saves a checkpoint: `snapshot`, or of the present state."""
        snapshot = snapshot or self._snapshot(self._host_state())
        with self.active.time.spent("checkpoint"):
            self._metrics.sync()
            self._checkpoints.save(snapshot)
        self._saved_at = time.monotonic()

    def _show(self) -> None:
        """Updates the progress bar."""
        at, one_model = self.active.at, self.active.scorer.one_model
        self._bar.update(
            at.window,
            at.time_s,
            value=None if at.last_eval is None else at.last_eval[self.config.eval.model][self._metric.name],
            model=None if one_model else self.config.eval.model,
            arrivals_per_window=self._chunks.arrivals_mean,
            density_pct=self.active.planner.policy.density_pct.tolist(),
        )

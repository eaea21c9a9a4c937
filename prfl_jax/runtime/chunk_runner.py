"""Plans the next chunk of windows, runs it in one device call, and writes the records of its windows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from prfl_jax.clock import after, find_dispatch_rule
from prfl_jax.density import OF_TRAINING
from prfl_jax.engine.plan import MAX_ROWS, stack_rows
from prfl_jax.engine.planner import PlannedWindow
from prfl_jax.engine.state import ChunkOutput
from prfl_jax.robustness.update_filter import ACCEPTED, REJECTED
from prfl_jax.runtime.active_run import ActiveRun
from prfl_jax.runtime.checkpoint import Snapshot
from prfl_jax.runtime.chunk_sizer import ChunkSizer, work
from prfl_jax.runtime.records import merge, window_record
from prfl_jax.system import multi_process
from prfl_jax.system.errors import NobodyLeft

SLOW_S = 4.0  # host seconds: a signal does not wait for a chunk that may take longer
POLL_S = 0.02


class ChunkRunner:
    """Runs the windows of a run, chunk by chunk.

    Args:
      run: its state, position and planner are advanced.
      host_state: returns the host's part of a checkpoint; called before a chunk is planned.
      snapshot: (host's part) -> checkpoint of the present device state.

    Attributes:
      kept: a checkpoint from before the chunk that is running, where that may take long; else None.
      arrivals_mean: arrivals per window in the last chunk; None before the first.
    """

    def __init__(
        self,
        run: ActiveRun,
        host_state: Callable[[], dict[str, Any]],
        snapshot: Callable[[dict[str, Any]], Snapshot],
    ) -> None:
        self.run, self._host_state, self._snapshot = run, host_state, snapshot
        self.kept: Snapshot | None = None
        self.arrivals_mean: float | None = None
        self._sizer = ChunkSizer(run.config.engine.chunk_s)

    def compile(self) -> None:
        """Compiles the chunk, if that is not done, for the run's stage."""
        run = self.run
        initial = run.masks is not None and run.masks.initial
        run.time.seconds["compile"] += run.sim.compiled_s  # before the run, to know its memory
        run.at.total_s += run.sim.compiled_s
        with run.time.spent("compile"):
            self._chunk = run.sim.executable(initial)
        run.sim.compiled_s = 0.0
        self._keys = run.sim.initial_keys if initial else run.sim.keys
        self._keeps_losses = bool(self.run.planner.policy.needs & OF_TRAINING)

    def prepare(self) -> None:
        """Charges what masks need of the next window; trains its clients if they prune, to know what they upload."""
        run, masks = self.run, self.run.masks
        window = run.at.window + 1
        if masks is None or window > run.config.rounds:
            return
        run.state, changed = masks.prepare(run.state, window)
        if changed:
            run.planner.set_costs(masks.costs())
        if not masks.trains_ahead(window):
            return
        try:
            with run.time.spent("plan"):
                row = run.planner.send_ahead(lambda client: masks.prunes(client, window), run.sim.copied_clock)
        except NobodyLeft:  # which is found out again where the window is planned
            return
        if row is None:
            return
        with run.time.spent("steady"):
            self._call([row])
            slots = [slot for slot in row.train[: row.train_count].tolist() if row.prunes[slot]]
            masks.trained(run.state, window, row.client[slots].tolist(), slots)
        run.planner.set_costs(masks.costs())

    def run_chunk(self) -> None:
        """Runs the next chunk, up to `run.at.interval_due` or the end of the run."""
        run, host = self.run, self._host_state()
        with run.time.spent("plan"):
            planned = self._plan()
        amount = sum(work(item.window) for item in planned)
        # A device call cannot be stopped: where it may take long, a signal saves what was there before it.
        if multi_process.alone() and self._sizer.at_most_s(amount) > SLOW_S:
            self.kept = self._snapshot(host)
        rows = [row for item in planned for row in item.rows]
        begin = time.monotonic()
        with run.time.spent("steady"):
            outputs, waited_s = self._call(rows)
        self.kept = None
        run.time.move(waited_s, "steady", "waiting")
        # All processes size the next chunk alike.
        self._sizer.observe(amount, multi_process.broadcast(time.monotonic() - begin - waited_s))
        for item in planned:
            own, outputs = outputs[: len(item.rows)], outputs[len(item.rows) :]
            self._record_window(item, merge(own))
            if run.at.ended is not None:
                return
        self.arrivals_mean = sum(len(item.window.arrivals) for item in planned) / len(planned)
        if run.masks is not None:
            last = planned[-1]
            run.at.pruned, run.at.masks_due = list(last.pruned), run.masks.closed(last.window, last.pruned)
            if run.masks.received(last.window.arrivals):
                run.planner.set_costs(run.masks.costs())
        run.at.interval_due = self._decides(run.at.window)

    def _plan(self) -> list[PlannedWindow]:
        """The windows of the next chunk: up to an interval's end, a grid point, the horizon or the plan's length."""
        run, config, planner = self.run, self.run.config, self.run.planner
        planned = [planner.take()]
        rows, amount = len(planned[0].rows), work(planned[0].window)
        while not self._ends_interval(planned[-1]):
            try:
                upcoming = planner.peek()
            except NobodyLeft:  # the run ends after what is planned
                break
            amount += work(upcoming)
            fixed = config.engine.chunk_windows
            if len(planned) >= fixed if fixed else not self._sizer.fits(amount):
                break
            over = config.horizon_s is not None and after(upcoming.end_s, config.horizon_s)
            # The model at the end of the last window answers a grid point before the next close.
            grid_point = after(upcoming.end_s, run.at.grid * config.eval_every_s)
            # A window has at most a row for each arrival and two more.
            on_arrival = find_dispatch_rule(config.window.dispatch).on_arrival
            full = rows + 1 + (len(upcoming.arrivals) + 1 if on_arrival else 0) > MAX_ROWS
            if over or grid_point or full or upcoming.index > config.rounds:
                break
            planned.append(planner.take())
            rows += len(planned[-1].rows)
        return planned

    def _ends_interval(self, last: PlannedWindow) -> bool:
        """Whether nothing can be planned beyond a window: densities or masks may change after it."""
        masks, window = self.run.masks, last.window.index
        changes = masks is not None and masks.ends_chunk(window, last.pruned)
        return changes or self._decides(window)

    def _decides(self, window: int) -> bool:
        """Whether densities are decided after a window."""
        masks = self.run.masks
        return self.run.planner.policy.decides_after(window) and (masks is None or masks.decides(window))

    def _call(self, rows: list[Any]) -> tuple[list[ChunkOutput], float]:
        """Runs rows of a plan on the devices: their outputs, and s that passed in waiting for other experiments."""
        run, outputs, waited_s = self.run, [], 0.0
        for first in range(0, len(rows), MAX_ROWS):  # one call, unless one window alone has more rows
            part = rows[first : first + MAX_ROWS]
            plan = stack_rows(part, MAX_ROWS)
            run.state, result = self._chunk(
                run.state, run.data, run.sim.device_plan(plan), np.int32(len(part)), self._keys
            )
            waited_s += run.sim.waited_s()
            outputs += run.sim.by_row(self._wait_for(result), plan, len(part))
        return outputs, waited_s

    def _wait_for(self, result: ChunkOutput) -> ChunkOutput:
        """The values; raises `Interrupted` if a signal comes first and there is something to save instead."""
        while self.kept is not None and not result.losses.is_ready():
            if self.run.guard.came:
                self.run.guard.check()
            time.sleep(POLL_S)
        return jax.tree.map(multi_process.fetch, result)

    def _record_window(self, item: PlannedWindow, output: ChunkOutput) -> None:
        """Moves the run's position past a window and writes its record; a loss that is not finite ends the run."""
        at, window = self.run.at, item.window
        at.window, at.time_s = window.index, window.end_s
        at.updates += len(window.arrivals)
        at.bytes_up += window.bytes_up
        at.bytes_down += window.bytes_down
        at.bytes_client_down += window.bytes_client_down
        at.weights = item.weights.tolist()
        if self.run.masks is not None:
            for failure in window.failures:
                self.run.masks.failed(failure.client)
        self.run.write(window_record(item, output))
        verdicts = output.verdicts or [ACCEPTED] * len(output.losses)
        for arrival, value, verdict in zip(window.arrivals, output.losses, verdicts, strict=True):
            if self._keeps_losses:
                at.train_loss[str(arrival.client)] = value
            if not math.isfinite(value) and verdict != REJECTED:  # a rejected update does not reach the model
                detail = f"the training loss of client {arrival.client} in window {window.index} is {value}"
                self.run.fail(detail, arrival.client)
                return

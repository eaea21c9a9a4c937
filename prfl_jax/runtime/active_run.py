"""What the parts of a running experiment share: its simulation, where it stands, its device state and its records."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from prfl_jax.engine.evaluate import EvalSet
from prfl_jax.engine.planner import Planner
from prfl_jax.engine.state import State
from prfl_jax.report import MetricsWriter
from prfl_jax.runtime.run_masks import RunMasks
from prfl_jax.runtime.run_state import RunState
from prfl_jax.runtime.scoring import Scorer
from prfl_jax.runtime.simulation import Simulation
from prfl_jax.system import multi_process
from prfl_jax.system.host_timer import HostTimer
from prfl_jax.system.signals import InterruptGuard
from prfl_jax.tasks import Scores

Watch = Callable[[dict[str, Any]], None] | None  # called with each record


class ActiveRun:
    """A run in progress.

    Args:
      simulation: its parts.
      guard: asked between pieces of work whether a signal has come.
      metrics: `metrics.jsonl`, to which the records go.
      watch: called with each record too.

    Attributes:
      at: where the run stands; saved with every checkpoint.
      time: host seconds by purpose.
      planner: clock and density policy.
      state: server model and slots on the devices.
      data: the clients' samples on the devices.
      test: test data.
      signal: data for what the density policy asks for; None where it asks for nothing.
      masks: of a run in which clients or server choose them; else None.
    """

    planner: Planner
    state: State
    data: Any
    test: EvalSet
    signal: EvalSet | None
    masks: RunMasks | None

    def __init__(self, simulation: Simulation, guard: InterruptGuard, metrics: MetricsWriter, watch: Watch) -> None:
        self.sim, self.config, self.guard = simulation, simulation.config, guard
        self.at, self.time = RunState(), HostTimer()
        self.metrics, self._watch = metrics, watch
        self.scorer = Scorer(simulation, self.check)

    def check(self) -> None:
        """Raises `Interrupted` after a signal, within a piece of work, where the run has one process.

        Several processes stop between pieces of work only, since the others would wait for the one that stops.
        """
        if multi_process.alone():
            self.guard.check()

    def write(self, record: dict[str, Any]) -> None:
        """Writes the next record of the run."""
        self.metrics.write(record)
        if self._watch is not None:
            self._watch(record)

    def end(self, how: str, detail: str | None = None) -> None:
        """Notes that the run has ended, unless it had before; `how` is one of `ended.how` in `schema.json`."""
        self.at.ended = self.at.ended or {"how": how, "detail": detail, "client": None}

    def fail(self, detail: str, client: int | None = None) -> None:
        """Ends the run because of a value that is not finite, whatever else ended it.

        Args:
          detail: which value, and where.
          client: whose it is; None: the server's.
        """
        self.at.ended = {"how": "not_finite", "detail": detail, "client": client}

    def test_scores(self) -> dict[str, Scores]:
        """Scores of both server models on test data, by name; a loss that is not finite ends the run."""
        with self.time.spent("eval"):
            scores = self.scorer.both(self.state, self.at.weights, self.test)
        for name, score in scores.items():
            if not math.isfinite(score.mean_loss):
                where = f"on test data after window {self.at.window}"
                self.fail(f"the {name} server model's loss {where} is {score.mean_loss}")
        return scores

    def own_scores(self) -> list[Scores]:
        """Scores of each client's own model on test data; [] unless clients have masks of their own."""
        with self.time.spent("eval"):
            return self.scorer.own_models(self.state, self.test)

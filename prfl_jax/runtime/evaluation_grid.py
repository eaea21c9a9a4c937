"""Evaluates the server models on test data at the points of a grid of simulated seconds.

A grid point is answered by the model in force at that second, so that methods with windows of different length are
evaluated at the same times.
"""

from __future__ import annotations

from collections.abc import Callable

from prfl_jax.clock import after
from prfl_jax.runtime.active_run import ActiveRun
from prfl_jax.runtime.records import score_values
from prfl_jax.system.errors import UserError

MOST_POINTS = 100_000  # of the grid within one window
_ALONG = ("updates", "bytes_up", "bytes_down", "bytes_client_down")


class EvaluationGrid:
    """The grid of a run, `eval_every_s` apart; `run.at.grid` is the next point.

    Args:
      run: it evaluates the models of this run and writes its `eval` records.
      show: called after each point, to update the progress bar.
    """

    def __init__(self, run: ActiveRun, show: Callable[[], None]) -> None:
        self.run, self._show = run, show

    def answer(self, until_s: float, inclusive: bool) -> None:
        """Answers the grid points before `until_s` with the present model.

        Args:
          until_s: simulated s. Times that differ by rounding only count as equal.
          inclusive: whether a point at `until_s` is answered too.

        Raises:
          UserError: there are more than `MOST_POINTS` points.
        """
        run, at, every = self.run, self.run.at, self.run.config.eval_every_s
        if until_s - at.grid * every > MOST_POINTS * every:
            raise UserError(
                f"config.eval_every_s={every}: allowed is more: window {at.window + 1}, which ends at {until_s:g} s, "
                f"has over {MOST_POINTS:,} points of the grid"
            )
        while after(until_s, t_s := at.grid * every) or (inclusive and not after(t_s, until_s)):
            if at.last_eval is None or at.last_eval["window"] != at.window:
                scores = run.test_scores()
                at.last_eval = {
                    "window": at.window,
                    **{name: score_values(s, run.sim.method.task) for name, s in scores.items()},
                }
            record = {
                "kind": "eval",
                "t_s": t_s,
                "model_s": min(at.time_s, t_s),
                **at.last_eval,
                **{key: getattr(at, key) for key in _ALONG},
                "host_s": sum(run.time.seconds.values()),
            }
            at.grid += 1
            run.write(record)
            self._show()
            run.check()

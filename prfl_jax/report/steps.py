"""Whole steps in place of simulated seconds, for tools that know no others (TensorBoard, Optuna)."""

from __future__ import annotations


def step_at(t_s: float, eval_every_s: float) -> int:
    """The step of a simulated second: that second, or, where evaluations are less than 1 s apart, their number.

    Evaluations of a run have different steps.

    Args:
      t_s: simulated s.
      eval_every_s: between two evaluations, s.

    Examples:
      >>> step_at(300.0, 100.0), step_at(0.03, 0.01)
      (300, 3)
    """
    return round(t_s / min(1.0, eval_every_s))

"""Whole steps in place of simulated seconds, for tools that know no others (TensorBoard, Optuna)."""

from __future__ import annotations

_POWERS = (0, 3, 6, 9)  # of ten: s, ms, us, ns


def step_at(t_s: float, eval_every_s: float) -> int:
    """The step of a simulated time: its second, or its millisecond where evaluations are less than 1 s apart.

    Below 0.01 s it is the microsecond, below 0.00001 s the nanosecond: a tenth of the distance of two evaluations, or
    less, so that evaluations of a run have different steps, and most windows too.

    Args:
      t_s: simulated s.
      eval_every_s: between two evaluations, s.

    Examples:
      >>> step_at(300.0, 100.0), step_at(0.3, 0.1), step_at(0.003, 0.001)
      (300, 300, 3000)
    """
    power = next((power for power in _POWERS if eval_every_s >= 10 ** min(0, 1 - power)), _POWERS[-1])
    return round(t_s * 10**power)

"""Compares a run with other strategies at the same simulated second, for the report's key `compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prfl_jax.report.names import one_model
from prfl_jax.report.series import columns, thin, value_at

_KEPT = (
    "seed",
    "time_to_accuracy",
    "windows",
    "simulated_s",
    "client_updates",
    "bytes_up",
    "bytes_down",
    "bytes_client_down",
)


def beside(
    own: Mapping[str, Sequence[Any]], others: Mapping[str, Mapping[str, Any]], points: int
) -> dict[str, dict[str, Any]]:
    """Compares each other run with this one at `t_s`, the last second of the evaluation grid that both reached.

    Args:
      own: this run's headline curve, `t_s` and `accuracy`.
      others: reports by strategy.
      points: the number of points (+ 1) of each other curve that are kept at most.

    Returns:
      By strategy, an entry as `schema.json` describes it (`comparison`).
    """
    entries = {}
    for strategy, other in others.items():
        curve = other["curves"][other["final"]["model"]]
        both = bool(own["t_s"] and curve["t_s"])
        t_s = min(own["t_s"][-1], curve["t_s"][-1]) if both else None
        shown = thin(list(zip(curve["t_s"], curve["accuracy"], strict=True)), points)
        entries[strategy] = {
            "model": other["final"]["model"],
            "one_model": one_model(other),
            "t_s": t_s,
            "own_accuracy": None if t_s is None else value_at(own["t_s"], own["accuracy"], t_s),
            "accuracy": None if t_s is None else value_at(curve["t_s"], curve["accuracy"], t_s),
            "final_accuracy": other["final"]["accuracy"],
            "curve": columns(("t_s", "accuracy"), shown),
            **{key: other[key] for key in _KEPT},
        }
    return entries

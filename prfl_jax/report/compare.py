"""Compares a run with other strategies at the same simulated second, for the report's key `compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prfl_jax.report.metric import Headline
from prfl_jax.report.names import one_model
from prfl_jax.report.schema import present_version
from prfl_jax.report.series import columns, thin, value_at

_KEPT = ("seed", "windows", "simulated_s", "client_updates", "bytes_up", "bytes_down", "bytes_client_down")


def beside(
    metric: Headline, own: Mapping[str, Sequence[Any]], others: Mapping[str, Mapping[str, Any]], points: int
) -> dict[str, dict[str, Any]]:
    """Compares each other run with this one at `t_s`, the last second of the evaluation grid that both reached.

    Args:
      metric: of this run and of the others.
      own: this run's headline curve, with `t_s` and the metric.
      others: reports by strategy.
      points: the number of points (+ 1) of each other curve that are kept at most.

    Returns:
      By strategy, an entry as `schema.json` describes it (`comparison`).

    Raises:
      ValueError: another run has another metric.
    """
    entries = {}
    for strategy, report in others.items():
        other = present_version(report, strategy)
        if Headline.of(other) != metric:
            raise ValueError(f"{strategy}: its metric is {other['metric']}, this run's is {metric}")
        curve = other["curves"][other["final"]["model"]]
        both = bool(own["t_s"] and curve["t_s"])
        t_s = min(own["t_s"][-1], curve["t_s"][-1]) if both else None
        shown = thin(list(zip(curve["t_s"], curve[metric.name], strict=True)), points)
        entries[strategy] = {
            "model": other["final"]["model"],
            "one_model": one_model(other),
            "t_s": t_s,
            metric.own_key: None if t_s is None else value_at(own["t_s"], own[metric.name], t_s),
            metric.name: None if t_s is None else value_at(curve["t_s"], curve[metric.name], t_s),
            metric.final_key: other["final"][metric.name],
            "curve": columns(("t_s", metric.name), shown),
            metric.times: other[metric.times],
            **{key: other[key] for key in _KEPT},
        }
    return entries

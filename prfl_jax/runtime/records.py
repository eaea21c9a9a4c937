"""Makes the records of a run, which are the lines of `metrics.jsonl`, as plain dicts; `report/` reads them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from prfl_jax.density import Decision, Evidence
from prfl_jax.engine.planner import PlannedWindow
from prfl_jax.engine.state import ChunkOutput
from prfl_jax.robustness.update_filter import CLIPPED, REJECTED
from prfl_jax.runtime.run_masks import MaskChanges
from prfl_jax.tasks import ACCURACY, CLASSIFICATION, Metric, Scores, Task


def merge(rows: Sequence[ChunkOutput]) -> ChunkOutput:
    """Joins the outputs of the rows of one window: its arrivals as lists, and how many weights its close kept."""
    verdicts = [v for row in rows if len(row.verdicts) for v in row.verdicts.tolist()]
    return ChunkOutput([v for row in rows for v in row.losses.tolist()], verdicts, jax.tree.map(int, rows[-1].kept))


def window_record(item: PlannedWindow, seen: ChunkOutput) -> dict[str, Any]:
    """A window: its arrivals with staleness, times and mean training loss, its bytes, and the densities it dispatched.

    Where the server filters updates the record names the clients whose updates were clipped or rejected, and with a
    robust aggregation how many weights it kept. All lists have an entry per arrival or per dispatch, never per client,
    of which there may be many. `failures` (rounds that ended without an update) and `repeats` (second copies that
    ended) are absent where there are none.
    """
    window = item.window
    checked: dict[str, Any] = {}
    if seen.verdicts:
        for name, verdict in (("clipped", CLIPPED), ("rejected", REJECTED)):
            who = zip(window.arrivals, seen.verdicts, strict=True)
            checked[name] = [arrival.client for arrival, found in who if found == verdict]
    if seen.kept != ():
        checked["kept"] = seen.kept
    faults: dict[str, tuple[Any, ...]] = {"failures": window.failures, "repeats": window.repeats}
    return {
        "kind": "window",
        "window": window.index,
        "start_s": window.start_s,
        "end_s": window.end_s,
        "arrivals": [a.client for a in window.arrivals],
        "staleness": list(item.staleness),
        "round_s": [a.round_s for a in window.arrivals],
        "download_s": [a.downloaded_s - a.dispatched_s for a in window.arrivals],
        "train_s": [a.computed_s - a.downloaded_s for a in window.arrivals],
        "arrived_s": [a.arrived_s for a in window.arrivals],
        "loss": seen.losses,
        "bytes_up": window.bytes_up,
        "bytes_down": window.bytes_down,
        "bytes_client_down": window.bytes_client_down,
        "client_bytes_up": [a.bytes_up for a in window.arrivals],
        "client_bytes_down": [[d.client, d.bytes_down] for d in window.dispatches],
        "waiting_s": window.waiting_s,
        "percents": item.density_pct,
        **checked,
        **{name: [one._asdict() for one in listed] for name, listed in faults.items() if listed},
    }


def interval_record(
    window: int, t_s: float, decision: Decision, evidence: Evidence, metric: Metric = ACCURACY
) -> dict[str, Any]:
    """A density decision after a window; `percents` are the new densities. Of the evidence, what was measured.

    Training losses are not among it: the records of the windows have them. A policy that learns has its `rewards`.

    Scores are written as values of the metric, under its name: `client_perplexity`, `server_perplexity`.
    """
    measured: dict[str, Any] = {}
    for kind in ("client_accuracy", "client_loss", "client_score", "server_accuracy", "server_score"):
        value = getattr(evidence, kind)
        if value is not None and kind in ("client_score", "server_score"):
            kind, value = f"{kind.removesuffix('score')}{metric.name}", metric.oriented(value)
        if value is not None:
            measured[kind] = _nan_as_none(value) if isinstance(value, np.ndarray) else value
    if decision.rewards is not None:
        measured["rewards"] = _nan_as_none(decision.rewards)
    return {
        "kind": "interval",
        "window": window,
        "t_s": t_s,
        "percents": decision.density_pct,
        "min_densities": decision.min_densities,
        "mean_times_s": _nan_as_none(decision.mean_times),
        **measured,
        "triggered": decision.triggered,
        "stop": decision.stop,
    }


def masks_record(window: int, t_s: float, pruned: Sequence[int], changes: MaskChanges) -> dict[str, Any]:
    """A change of the masks after a window: what share of the model's values the server's and the clients' hold.

    `server_bytes` are those of the server's model; with `initial_over` training begins, or has begun. `rounds` is only
    in the record of an initial stage that was over before window 1.
    """
    return {
        "kind": "masks",
        "window": window,
        "t_s": t_s,
        "stage": "initial" if changes.initial else "adaptive",
        "pruned": list(pruned),
        "server": changes.retention,
        "clients": changes.clients,
        "changed": changes.changed,
        "server_bytes": changes.server_bytes,
        "initial_over": changes.initial_over,
        **({} if changes.rounds is None else {"rounds": changes.rounds}),
    }


def _nan_as_none(values: np.ndarray) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


def score_values(score: Scores, task: Task) -> dict[str, float]:
    """Accuracy, mean loss and, under its own name, the value of the task's metric."""
    return {"accuracy": score.accuracy, "loss": score.mean_loss, task.metric.name: task.metric.value(score)}


def final_record(
    window: int, t_s: float, scores: dict[str, Scores], mixes: list[np.ndarray], task: Task = CLASSIFICATION
) -> dict[str, Any]:
    """Test scores at the end, by server model.

    `per_class` has the accuracy by true label. Test samples belong to no client, so `per_client` weights the accuracy
    by label with each client's own mix of labels, of its own model where it has one; `worst_client` has the lowest of
    them. Where labels say nothing (`Task.by_label`) the lists are empty and `worst_client` is None.

    Args:
      mixes: each client's training samples by label, `[classes]` counts; none where labels say nothing.
    """
    record: dict[str, Any] = {"kind": "final", "window": window, "t_s": t_s}
    for name, score in scores.items():
        models = score.of_clients or [score] * len(mixes)
        own = [model.under(mix) for model, mix in zip(models, mixes, strict=bool(mixes))]
        record[name] = {
            **score_values(score, task),
            "per_class": score.per_class() if task.by_label else [],
            "worst_client": _worst(own) if task.by_label else None,
            "per_client": own,
        }
    return record


def own_models(scores: Sequence[Scores], samples: Sequence[int], mixes: list[np.ndarray]) -> dict[str, Any]:
    """The accuracy of each client's own model, `per_client`; `mean` weights them with the clients' training samples.

    Args:
      scores: of each client's own model on the test data.
      samples: that each client trains on.
      mixes: as in `final_record`: each accuracy is that under the client's own mix of labels, or without mixes that on
        all test samples.
    """
    own: list[float | None] = [score.accuracy for score in scores]
    if mixes:
        own = [score.under(mix) for score, mix in zip(scores, mixes, strict=True)]
    known = [(value, count) for value, count in zip(own, samples, strict=True) if value is not None]
    total = sum(count for _, count in known)
    mean = sum(value * count for value, count in known) / total if total else None
    return {"per_client": own, "mean": mean, "worst_client": _worst(own)}


def _worst(accuracies: Sequence[float | None]) -> dict[str, Any]:
    """The client with the lowest accuracy of those that have one."""
    worst = min(((a, c) for c, a in enumerate(accuracies) if a is not None), default=(None, None))
    return {"client": worst[1], "accuracy": worst[0]}

"""The lines of `metrics.jsonl`, as plain dicts; `report/` reads them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from prfl_jax.density import Decision
from prfl_jax.engine.engine import ChunkOutput
from prfl_jax.engine.evaluate import Scores
from prfl_jax.engine.planner import PlannedWindow
from prfl_jax.robustness.update_filter import CLIPPED, REJECTED


def merge(rows: Sequence[ChunkOutput]) -> ChunkOutput:
    """What was seen in one window: its arrivals as lists, and what its close kept."""
    verdicts = [v for row in rows if len(row.verdicts) for v in row.verdicts.tolist()]
    return ChunkOutput([v for row in rows for v in row.losses.tolist()], verdicts, jax.tree.map(int, rows[-1].kept))


def window_record(item: PlannedWindow, seen: ChunkOutput) -> dict[str, Any]:
    """A window: who arrived, how stale, with what mean training loss; bytes in this window; densities it dispatched.

    Where the server checks updates, also whose were clipped and rejected, and how many weights a robust aggregation
    kept. All lists are of arrivals or of dispatches, never of all clients: these may be many. `failures` (rounds that
    ended without an update) and `repeats` (second copies that ended) are there only where there are any.
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
    window: int, t_s: float, decision: Decision, client_accuracy: np.ndarray | None, server_accuracy: float | None
) -> dict[str, Any]:
    """A density decision after window I, 2I, ...; `density_pct` are the new ones."""
    clients = len(decision.density_pct)
    accuracy = [math.nan] * clients if client_accuracy is None else client_accuracy.tolist()
    return {
        "kind": "interval",
        "window": window,
        "t_s": t_s,
        "percents": decision.density_pct,
        "min_densities": decision.min_densities,
        "mean_times_s": [None if math.isnan(t) else t for t in decision.mean_times.tolist()],
        "client_accuracy": [None if math.isnan(a) else a for a in accuracy],
        "server_accuracy": server_accuracy,
        "triggered": decision.triggered,
        "stop": decision.stop,
    }


def final_record(window: int, t_s: float, scores: dict[str, Scores], mixes: list[np.ndarray]) -> dict[str, Any]:
    """Test scores at the end, by server model.

    Per class: accuracy by true label. Per client: test accuracy under the client's own mix
    of labels, since test images belong to nobody; the worst of them is `worst_client`.

    Args:
      mixes: each client's training images by label, `[classes]` counts.
    """
    record: dict[str, Any] = {"kind": "final", "window": window, "t_s": t_s}
    for name, score in scores.items():
        own = [score.under(mix) for mix in mixes]
        worst = min(((a, c) for c, a in enumerate(own) if a is not None), default=(None, None))
        record[name] = {
            "accuracy": score.accuracy,
            "loss": score.mean_loss,
            "per_class": score.per_class(),
            "worst_client": {"client": worst[1], "accuracy": worst[0]},
            "per_client": own,
        }
    return record

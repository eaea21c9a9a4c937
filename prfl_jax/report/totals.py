"""Sums up the records of a run in one pass: curves, densities, each client's totals.

Each accumulator has an `add...` method for the kind of record that it needs; `RunTotals` passes every record to the
accumulators that need it. Nothing here depends on host time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prfl_jax.clock.faults import KINDS, REPEATED_UPLOAD
from prfl_jax.report.masks import MaskTotals
from prfl_jax.report.ratios import RatioTotals
from prfl_jax.report.series import Thinned
from prfl_jax.tasks import ACCURACY, Metric

CURVES = ("mask", "fedavg")
CURVE_POINTS = 1000
ALONG = ("window", "bytes_up", "bytes_down", "bytes_client_down")  # totals of the run at an evaluation
Record = Mapping[str, Any]


def threshold_key(threshold: float) -> str:
    """The name of a threshold in a report: 0.8 is "0.8", 200.0 is "200"."""
    return f"{threshold:g}"


def score_columns(metric: Metric) -> tuple[str, ...]:
    """The scores of a model in a report: accuracy, loss and, if it is another one, the metric."""
    return tuple(dict.fromkeys(("accuracy", "loss", metric.name)))


class CurveTotals:
    """The curve of one server model over the evaluation grid, and when it first reached each threshold of the metric.

    Attributes:
      columns: the names of the values of a point.
    """

    def __init__(self, thresholds: Sequence[float], metric: Metric = ACCURACY) -> None:
        self._metric, self._scores = metric, score_columns(metric)
        self.columns = ("t_s", "model_s", *self._scores, *ALONG)
        self.points: Thinned[tuple[Any, ...]] = Thinned(CURVE_POINTS)
        self.thresholds = tuple(thresholds)
        self.reached_s: dict[str, float | None] = {threshold_key(level): None for level in thresholds}

    def add_eval(self, record: Record, scores: Record | None) -> None:
        """Adds an evaluation; `scores` has accuracy, loss and metric, or is None if the run has no such model."""
        if scores is None:
            return
        t_s, value = record["t_s"], scores[self._metric.name]
        along = (record.get(name) for name in ALONG)
        self.points.add((t_s, record["model_s"], *(scores[name] for name in self._scores), *along))
        for level in self.thresholds:
            key = threshold_key(level)
            if value is not None and self._metric.reached(value, level) and self.reached_s[key] is None:
                self.reached_s[key] = t_s


class DensityTotals:
    """The step function of each client's density, in percent: each value holds from its `t_s` on."""

    def __init__(self, clients: int, points: int) -> None:
        self.now: list[int] = []
        self.points: list[Thinned[tuple[int, float, int]]] = [Thinned(points) for _ in range(clients)]
        self.lowest = [100] * clients
        self.recovered_s: list[float | None] = [None] * clients  # since when its density is back at 1

    def add(self, density_pct: Sequence[int], window: int, t_s: float) -> None:
        """Adds a decision: `density_pct` `[M]` hold from `t_s` on, the end of `window`."""
        if density_pct == self.now:
            return
        for client, percent in enumerate(density_pct):
            if self.now and percent == self.now[client]:
                continue
            self.points[client].add((window, round(t_s, 3), percent))
            self.lowest[client] = min(self.lowest[client], percent)
            pruned_before = self.lowest[client] < 100
            self.recovered_s[client] = t_s if percent == 100 and pruned_before else None
        self.now = list(density_pct)


class ClientTotals:
    """Sums over the arrivals of each client, all `[M]`; `faults` by kind."""

    def __init__(self, clients: int) -> None:
        self.updates = np.zeros(clients, np.int64)
        self.staleness_sum = np.zeros(clients, np.int64)
        self.staleness_max = np.zeros(clients, np.int64)
        self.round_s_sum = np.zeros(clients)
        self.waiting_s = np.zeros(clients)
        self.triggers = np.zeros(clients, np.int64)
        self.bytes_up: np.ndarray | None = None  # until a record has them
        self.bytes_down: np.ndarray | None = None
        self.faults = {kind: np.zeros(clients, np.int64) for kind in KINDS}

    def add_window(self, record: Record) -> None:
        """Adds the arrivals, failures and repeated uploads of a window."""
        for client, staleness, round_s, waited in zip(
            record["arrivals"], record["staleness"], record["round_s"], record["waiting_s"], strict=True
        ):
            self.updates[client] += 1
            self.staleness_sum[client] += staleness
            self.staleness_max[client] = max(self.staleness_max[client], staleness)
            self.round_s_sum[client] += round_s
            self.waiting_s[client] += waited
        failures, repeats = record.get("failures", ()), record.get("repeats", ())
        for failure in failures:
            self.faults[failure["kind"]][failure["client"]] += 1
        for repeat in repeats:
            self.faults[REPEATED_UPLOAD][repeat["client"]] += 1
        if "client_bytes_up" in record:
            up = zip(record["arrivals"], record["client_bytes_up"], strict=True)
            besides = [(one["client"], one["bytes_up"]) for one in (*failures, *repeats)]
            self.bytes_up = _add_pairs(self.bytes_up, [*up, *besides], len(self.updates))
        if "client_bytes_down" in record:
            missed = [(one["client"], -one.get("bytes_missed", 0)) for one in failures]
            self.bytes_down = _add_pairs(self.bytes_down, [*record["client_bytes_down"], *missed], len(self.updates))


class CheckTotals:
    """How many updates the server clipped and rejected, and how many weights a robust aggregation kept."""

    def __init__(self, clients: int) -> None:
        self.by_client = {name: np.zeros(clients, np.int64) for name in ("clipped", "rejected")}  # each [M]
        self.checked = False
        self.kept = 0  # weights that kept their value, summed over windows
        self.windows = 0  # whose record has `kept`

    def add_window(self, record: Record) -> None:
        """Adds the verdicts of a window."""
        for name, counts in self.by_client.items():
            for client in record.get(name, ()):
                counts[client] += 1
        self.checked |= "clipped" in record
        if "kept" in record:
            self.kept += record["kept"]
            self.windows += 1


def _add_pairs(sums: np.ndarray | None, pairs: Any, clients: int) -> np.ndarray:
    """Adds each (client, bytes) to `sums` `[M]`; None stands for zeros."""
    sums = np.zeros(clients) if sums is None else sums  # float64 is exact for bytes below 2^53
    for client, count in pairs:
        sums[client] += count
    return sums


class RunTotals:
    """All totals that a report needs from the records; `add` takes the records in the order of the file."""

    def __init__(
        self, clients: int, thresholds: Sequence[float], density_points: int, metric: Metric = ACCURACY
    ) -> None:
        self.metric = metric
        self.curves = {name: CurveTotals(thresholds, metric) for name in CURVES}
        self.densities = DensityTotals(clients, density_points)
        self.densities.add([100] * clients, 0, 0.0)  # until the first decision
        self.clients = ClientTotals(clients)
        self.checks = CheckTotals(clients)
        self.ratios = RatioTotals(clients)
        self.masks = MaskTotals()
        self.windows = 0
        self.simulated_s = 0.0
        self.bytes = {"bytes_up": 0, "bytes_down": 0, "bytes_client_down": 0}
        self.arrivals_min: int | None = None
        self.arrivals_max: int | None = None
        self.empty_windows = 0
        self.length_min_s: float | None = None
        self.length_max_s: float | None = None
        self.stop_rule: dict[str, Any] | None = None
        self.final: Record | None = None
        self.end: Record | None = None

    def add(self, record: Record) -> None:
        """Adds one record.

        Raises:
          ValueError: for a kind that is not known.
        """
        kind = record["kind"]
        if kind == "window":
            self._add_window(record)
        elif kind == "eval":
            for name in CURVES:
                self.curves[name].add_eval(record, record.get(name))
        elif kind == "interval":
            self.densities.add(record["percents"], record["window"], record["t_s"])
            self.clients.triggers += np.asarray(record["triggered"], np.int64)
            if "rewards" in record:
                self.ratios.begin()
            if record["stop"] and self.stop_rule is None:
                self.stop_rule = {"window": record["window"], "t_s": record["t_s"]}
        elif kind == "masks":
            self.masks.add(record)
        elif kind == "final":
            self.final = record
        elif kind == "end":
            self.end = record
        else:
            raise ValueError(f"record of unknown kind {kind!r}")

    def _add_window(self, record: Record) -> None:
        arrivals, length_s = len(record["arrivals"]), record["end_s"] - record["start_s"]
        self.windows = record["window"]
        self.simulated_s = record["end_s"]
        for name in self.bytes:
            self.bytes[name] += record[name]
        self.arrivals_min = arrivals if self.arrivals_min is None else min(self.arrivals_min, arrivals)
        self.arrivals_max = arrivals if self.arrivals_max is None else max(self.arrivals_max, arrivals)
        self.empty_windows += arrivals == 0
        self.length_min_s = length_s if self.length_min_s is None else min(self.length_min_s, length_s)
        self.length_max_s = length_s if self.length_max_s is None else max(self.length_max_s, length_s)
        self.clients.add_window(record)
        self.checks.add_window(record)
        self.ratios.add_window(record)
        self.masks.add_window(record)

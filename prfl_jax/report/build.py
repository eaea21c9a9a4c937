"""Makes the content of `report.json` from the records of a run, in one pass, and from what else the run knows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from prfl_jax.clock import faults_on
from prfl_jax.report.compare import beside
from prfl_jax.report.metric import Headline
from prfl_jax.report.plain import compact, plain
from prfl_jax.report.schema import SCHEMA_VERSION
from prfl_jax.report.series import columns, shorten, thin
from prfl_jax.report.totals import CURVES, Record, RunTotals, score_columns
from prfl_jax.tasks import ACCURACY, Metric

# What may differ between two runs of the same experiment on the same machine type.
HOST_KEYS = ("host", "peak_memory_mb", "commit", "device", "versions")
MAX_BYTES = 1_000_000  # of report.json, whatever the run
_TARGET_BYTES = 900_000  # of the comparable part; what remains is for HOST_KEYS and line ends
_LIST_LIMIT = 1000  # entries of any one list, before the size asks for fewer
_DENSITY_POINTS = 6000  # over all clients


def comparable(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report without what depends on the host: equal for two equal runs, to the bit."""
    return {key: value for key, value in report.items() if key not in HOST_KEYS}


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """What a run knows besides its records.

    Attributes:
      config: every setting, as `to_dict` gives them. In the report, lists of more than 1,000 entries are thinned
        (config.json has all of them).
      config_hash: of the settings that determine the run.
      model: `name`, `parameters`, `size_mb` (MB), and the `files` that hold its values.
      split_summary: how the data was partitioned, as the partitioner describes it.
      host: `compile_s`, `steady_s`, `total_s` and others, in seconds. If only part of the run was
        measured (after a resume), `updates` and `windows` say how many fell into `steady_s`.
      commit: of the code; None where it is not known.
      versions: of the libraries, by name.
      device: what the run was computed on.
      flags: settings of JAX and of the engine that may move the last bits.
      peak_memory_mb: MB, None where the backend does not report it.
      attack: the attack and the clients that run it; None where there is none.
      metric: the headline metric of the task.
    """

    config: Mapping[str, Any]
    config_hash: str
    model: Mapping[str, Any]
    split_summary: Any
    host: Mapping[str, Any]
    commit: str | None
    versions: Mapping[str, str]
    device: Any
    flags: Any
    peak_memory_mb: float | None
    attack: Mapping[str, Any] | None = None
    metric: Metric = ACCURACY


def build_report(
    run: RunInfo,
    records: Iterable[Record],
    *,
    compare: Mapping[str, Mapping[str, Any]] | None = None,
    privacy: Callable[[Sequence[int]], Mapping[str, Any] | None] = lambda updates: None,
) -> dict[str, Any]:
    """The report of one run, as plain JSON values; `schema.json` says what it holds.

    Args:
      run: what it knows besides its records.
      records: of `metrics.jsonl`, in its order; read once.
      compare: reports of other strategies run to the same simulated second, by strategy.
      privacy: the privacy spent, from each client's arrivals `[M]`; None where updates are not noised.

    Raises:
      ValueError: for a headline (`eval.model`) that is neither server model, or a record of unknown kind.
    """
    config = run.config
    headline, clients = config["eval"]["model"], config["clients"]["number"]
    if headline not in CURVES:
        raise ValueError(f"headline {headline!r}: one of {', '.join(CURVES)}")
    points = min(200, max(8, _DENSITY_POINTS // clients))
    metric = Headline.of_task(run.metric)
    totals = RunTotals(clients, config["eval"]["thresholds"], points, run.metric)
    for record in records:
        totals.add(record)

    limit = _LIST_LIMIT
    while True:
        report = plain(
            {
                "schema_version": SCHEMA_VERSION,
                "strategy": config["strategy"],
                "seed": config["seed"],
                "metric": dataclasses.asdict(metric),
                "config": shorten(config, limit),
                "config_hash": run.config_hash,
                "commit": run.commit,
                "versions": run.versions,
                "device": run.device,
                "flags": run.flags,
                "model": run.model,
                "partition": shorten(run.split_summary, limit),
                "host": _host(run.host, totals),
                "peak_memory_mb": run.peak_memory_mb,
                "compare": beside(metric, _curve(totals, headline, limit), compare or {}, max(2, limit * 3 // 10)),
                **_results(totals, metric, headline, limit),
                **_only_some(
                    attack=run.attack,
                    defence=_defence(totals, run.model["parameters"]),
                    privacy=privacy(totals.clients.updates.tolist()),
                    faults=_faults(totals, config),
                    masks=totals.masks.section(limit),
                    own_models=_own_models(totals),
                ),
            }
        )
        if limit <= 2 or len(compact(comparable(report)).encode()) < _TARGET_BYTES:
            return report
        limit //= 2


def _results(totals: RunTotals, metric: Headline, headline: str, limit: int) -> dict[str, Any]:
    """The part of the report that follows from the records alone."""
    final = totals.final or {}
    updates = int(totals.clients.updates.sum())
    saved = totals.bytes["bytes_client_down"] - totals.bytes["bytes_down"]
    chosen = final.get(headline) or {}
    return {
        "windows": totals.windows,
        "simulated_s": totals.simulated_s,
        "client_updates": updates,
        **totals.bytes,
        "delta_saved": {"bytes": saved, "fraction": _ratio(saved, totals.bytes["bytes_client_down"])},
        "final": {
            "model": headline,
            "metric": chosen.get(metric.name),
            **{name: chosen.get(name) for name in score_columns(totals.metric)},
            "window": final.get("window"),
            "t_s": final.get("t_s"),
            **{name: _final_scores(final.get(name), totals.metric) for name in CURVES},
        },
        "worst_client": chosen.get("worst_client"),
        "per_class": chosen.get("per_class") or [],
        metric.times: totals.curves[headline].reached_s,
        f"{metric.times}_curves": {name: totals.curves[name].reached_s for name in CURVES},
        "curves": {name: _curve(totals, name, limit) for name in CURVES},
        "clients": _clients(totals, headline, limit),
        "clients_total": len(totals.clients.updates),
        "window_stats": {
            "arrivals_mean": _ratio(updates, totals.windows),
            "arrivals_min": totals.arrivals_min,
            "arrivals_max": totals.arrivals_max,
            "empty": totals.empty_windows,
            "length_mean_s": _ratio(totals.simulated_s, totals.windows),
            "length_min_s": totals.length_min_s,
            "length_max_s": totals.length_max_s,
        },
        "stop_rule": totals.stop_rule,
        "ended": _ended(totals),
    }


def _only_some(**sections: Mapping[str, Any] | None) -> dict[str, Any]:
    """The sections that only some runs have."""
    return {name: section for name, section in sections.items() if section is not None}


def _defence(totals: RunTotals, parameters: int) -> dict[str, Any] | None:
    checks = totals.checks
    if not checks.checked:
        return None
    return {
        **{name: int(counts.sum()) for name, counts in checks.by_client.items()},
        "kept_fraction": _ratio(checks.kept, checks.windows * parameters) if checks.windows else None,
    }


def _faults(totals: RunTotals, config: Mapping[str, Any]) -> dict[str, int] | None:
    """How many faults of each kind happened; None where the config has no faults."""
    if not faults_on(config):
        return None
    return {kind: int(by_client.sum()) for kind, by_client in totals.clients.faults.items()}


def _own_models(totals: RunTotals) -> dict[str, Any] | None:
    """The accuracy of the clients' own models; None where they have none, or the run ended before it was measured."""
    own = (totals.final or {}).get("own_models")
    return own and {"accuracy_mean": own["mean"], "worst_client": own["worst_client"]}


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _final_scores(scores: Record | None, metric: Metric) -> dict[str, Any] | None:
    """One model's scores without `per_client`: those of the headline are in the list of clients."""
    if scores is None:
        return None
    return {key: scores.get(key) for key in (*score_columns(metric), "worst_client", "per_class")}


def _curve(totals: RunTotals, name: str, limit: int) -> dict[str, list[Any]]:
    curve = totals.curves[name]
    return columns(curve.columns, thin(curve.points.rows(), limit))


def _clients(totals: RunTotals, headline: str, limit: int) -> list[dict[str, Any]]:
    """An entry per client; of more than `limit` clients an even selection."""
    sums, densities, final = totals.clients, totals.densities, totals.final or {}
    accuracies, own_accuracies = ((final.get(name) or {}).get("per_client") or [] for name in (headline, "own_models"))
    points = max(2, _DENSITY_POINTS * limit // _LIST_LIMIT // len(sums.updates))
    entries = []
    for client in thin(range(len(sums.updates)), limit):
        updates = int(sums.updates[client])
        steps = thin(densities.points[client].rows(), points)
        entries.append(
            {
                "client": client,
                "updates": updates,
                "staleness_mean": _ratio(int(sums.staleness_sum[client]), updates),
                "staleness_max": int(sums.staleness_max[client]) if updates else None,
                "round_s_mean": _ratio(float(sums.round_s_sum[client]), updates),
                "waiting_s": sums.waiting_s[client],
                "bytes_up": None if sums.bytes_up is None else _whole(sums.bytes_up[client]),
                "bytes_down": None if sums.bytes_down is None else _whole(sums.bytes_down[client]),
                "densities": columns(("window", "t_s", "percent"), steps),
                "lowest_density": densities.lowest[client] / 100,
                "recovered_s": densities.recovered_s[client],
                "triggers": int(sums.triggers[client]),
                "accuracy": accuracies[client] if client < len(accuracies) else None,
                **_verdicts(totals, client),
                **totals.ratios.of(client),
                **totals.masks.of(client),
                **({"own_accuracy": own_accuracies[client]} if own_accuracies else {}),
            }
        )
        own = {kind: int(counts[client]) for kind, counts in sums.faults.items() if counts[client]}
        if own:
            entries[-1]["faults"] = own
    return entries


def _verdicts(totals: RunTotals, client: int) -> dict[str, int]:
    """How often a client's update was clipped and rejected, where updates are checked."""
    checks = totals.checks
    return {name: int(counts[client]) for name, counts in checks.by_client.items()} if checks.checked else {}


def _whole(count: float) -> float | int:
    """A count of bytes as an integer; a float where bytes are density times model size (`transport.bytes=density`)."""
    return int(count) if float(count).is_integer() else float(count)


def _ended(totals: RunTotals) -> dict[str, Any]:
    if totals.end is None:
        return {"how": "interrupted", "detail": "no end was recorded", "client": None, "window": totals.windows}
    return {key: totals.end.get(key) for key in ("how", "detail", "client", "window")}


def _host(host: Mapping[str, Any], totals: RunTotals) -> dict[str, Any]:
    """Host seconds, with the speed in the steady part, which does not include compilation."""
    speed = {
        "updates_per_s": _ratio(int(totals.clients.updates.sum()), host["steady_s"]),
        "s_per_window": _ratio(host["steady_s"], totals.windows),
    }
    return {**host, **speed}

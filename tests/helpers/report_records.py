"""Made-up runs for the report's tests: records as a run writes them, and a report around them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator
from typing import Any

from prfl_jax.config.defaults import default_config
from prfl_jax.report import RunInfo, build_report


def simulated_run(
    clients: int = 10,
    windows: int = 400,
    interval: int = 20,
    dt_s: float = 14.0,
    eval_every_s: float = 100.0,
    pace_s: float = 600.0,
    best: float = 0.953,
    prune: bool = True,
    seed: int = 0,
) -> Iterator[dict[str, Any]]:
    """A run of PR-FL as one sees it: pruned after the first interval, recovered one after the other."""
    rng = random.Random(seed)
    density_pct = [100] * clients
    lowest = [max(8, round(100 * (1 - 0.92 * i / max(1, clients - 1)))) for i in range(clients)]
    totals = {"updates": 0, "bytes_up": 0, "bytes_down": 0, "bytes_client_down": 0}
    grid, t_s, accuracy = 0, 0.0, 0.1
    size = 26_414_840
    for window in range(1, windows + 1):
        start_s, t_s = t_s, t_s + (82.7 if window == 1 else dt_s)
        chance = [
            1.0 if window == 1 else min(1.0, 0.97 - 0.08 * i * 10 / clients * (p / 100))
            for i, p in enumerate(density_pct)
        ]
        arrivals = [i for i in range(clients) if rng.random() < chance[i]]
        rng.shuffle(arrivals)
        up = [size * density_pct[i] // 100 for i in arrivals]
        sent = max(up, default=0)
        record = {
            "kind": "window", "window": window, "start_s": start_s, "end_s": t_s, "arrivals": arrivals,
            "staleness": [0 if rng.random() < 0.9 else 1 for _ in arrivals],
            "round_s": [rng.uniform(0.5, 1.0) * dt_s for _ in arrivals],
            "loss": [0.3 * math.exp(-t_s / pace_s) + 0.01 for _ in arrivals],
            "bytes_up": sum(up), "bytes_down": sent, "bytes_client_down": sum(up),
            "waiting_s": [rng.uniform(0, 3) for _ in arrivals], "percents": [density_pct[i] for i in arrivals],
            "client_bytes_up": up, "client_bytes_down": [[i, b] for i, b in zip(arrivals, up, strict=True)],
        }  # fmt: skip
        yield record
        totals["updates"] += len(arrivals)
        for key in ("bytes_up", "bytes_down", "bytes_client_down"):
            totals[key] += record[key]
        while (grid + 1) * eval_every_s < t_s + dt_s and window < windows:
            grid += 1
            accuracy = best - (best - 0.1) * math.exp(-grid * eval_every_s / pace_s) + rng.gauss(0, 0.006)
            scores = {"accuracy": accuracy, "loss": 0.4 * (1 - accuracy)}
            other = {"accuracy": accuracy - 0.01 + rng.gauss(0, 0.004), "loss": 0.41 * (1 - accuracy)}
            yield {
                "kind": "eval", "t_s": grid * eval_every_s, "window": window, "model_s": t_s, "mask": scores,
                "fedavg": other, "host_s": rng.random(), **totals,
            }  # fmt: skip
        if window % interval == 0:
            if prune and window == interval:
                density_pct = list(lowest)
            elif prune and window > 6 * interval:
                density_pct = [
                    min(100, p + 20) if window > (6 + 8 * i / clients) * interval else p
                    for i, p in enumerate(density_pct)
                ]
            yield {
                "kind": "interval", "window": window, "t_s": t_s, "percents": list(density_pct),
                "min_densities": [0.05] * clients, "mean_times_s": [dt_s] * clients,
                "client_accuracy": [accuracy] * clients, "server_accuracy": accuracy,
                "triggered": [p < 100 for p in density_pct], "stop": window == windows,
            }  # fmt: skip
    per_client = [accuracy - 0.03 + 0.06 * rng.random() for _ in range(clients)]
    scores = {
        "accuracy": accuracy, "loss": 0.4 * (1 - accuracy), "per_class": [accuracy] * 10, "per_client": per_client,
        "worst_client": {"client": per_client.index(min(per_client)), "accuracy": min(per_client)},
    }  # fmt: skip
    yield {"kind": "final", "window": windows, "t_s": t_s, "mask": scores, "fedavg": scores}
    yield {"kind": "end", "how": "rounds", "detail": None, "client": None, "window": windows}


def of_language_model(records: Iterable[dict[str, Any]], tokens: int = 5000) -> Iterator[dict[str, Any]]:
    """The same run as one of a language model: the better an accuracy, the lower the perplexity, from `tokens` on."""

    def scored(scores: dict[str, Any]) -> dict[str, Any]:
        loss = math.log(tokens) * (1 - scores["accuracy"])
        return {**scores, "loss": loss, "perplexity": math.exp(loss)}

    unlabelled = {"per_class": [], "per_client": [], "worst_client": None}
    for record in records:
        if record["kind"] in ("eval", "final"):
            more = unlabelled if record["kind"] == "final" else {}
            record = {**record, **{name: scored(record[name]) | more for name in ("mask", "fedavg")}}
        yield record


def report_of(records: Any, clients: int, **changes: Any) -> dict[str, Any]:
    """A report with made-up surroundings; `changes` replace fields of `RunInfo`, settings or arguments of the report.

    `seed`, `headline` and `thresholds` are settings of the config; `compare` and `privacy` go to `build_report`.
    """
    config = default_config().to_dict()
    config["clients"]["number"] = clients
    if clients != 10:
        config["clients"]["up_mb_s"] = [1.0 + i / 7 for i in range(clients)]
        config["clients"]["down_mb_s"] = [4.0 + i / 7 for i in range(clients)]
    config = {**config, **changes.pop("config", {})}
    config["seed"] = changes.pop("seed", config["seed"])
    named = {"model": changes.pop("headline", None), "thresholds": changes.pop("thresholds", (0.8, 0.9))}
    config["eval"] = {**config["eval"], **{key: value for key, value in named.items() if value is not None}}
    arguments = {key: changes.pop(key) for key in ("compare", "privacy") if key in changes}
    info = {
        "config": config,
        "config_hash": "c0ffee",
        "commit": "0123abc",
        "versions": {"jax": "0.10.2"},
        "device": "cpu",
        "flags": {"XLA_FLAGS": ""},
        "split_summary": {"images": [400] * clients, "labels": [[40] * 10] * clients},
        "model": {"name": "conv2", "parameters": 6_603_710, "size_mb": 26.41484},
        "host": {"compile_s": 12.25, "steady_s": 100.0, "total_s": 125.0, "eval_s": 4.0, "checkpoint_s": 1.5},
        "peak_memory_mb": 1834.5,
    }
    return build_report(RunInfo(**{**info, **changes}), records, **arguments)

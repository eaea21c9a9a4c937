"""Reports as the tables and figures of a study read them, made up; and what tables say, read back."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from prfl_jax.studies.columns import Column, Preset
from prfl_jax.studies.study import Material

ACCURACY = {"name": "accuracy", "higher_is_better": True, "share": True}
PERPLEXITY = {"name": "perplexity", "higher_is_better": False, "share": False}


def rows_of(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with open(file, newline="") as text:
        return list(csv.DictReader(text))


def material(out: Path, columns: tuple[Column, ...], reports: Any, seeds: int = 1, mark: str = "") -> Material:
    """What a product of a study is made from."""
    return Material(out, Preset("p", columns, 20, mark), reports, seeds)


def fake(seed: int, accuracy: float | None, reached: dict[str, float | None], percent: int = 100) -> dict[str, Any]:
    """A run of one client with five evaluations, whose last accuracy is given."""
    return {
        "seed": seed, "final": {"accuracy": accuracy, "model": "mask"}, "time_to_accuracy": reached, "commit": "abc",
        "metric": ACCURACY,
        "device": {"kind": "cpu", "host_cores": 2}, "clients": [{"densities": {"percent": [100, percent]}}],
        "ended": {"how": "horizon"},
        "curves": {"mask": {"t_s": [10, 20, 30, 40, 50], "accuracy": [0.4, 0.6, 0.3, 0.5, accuracy]}},
    }  # fmt: skip


def run_of(
    values: list[float | None],
    reached: dict[str, float | None],
    seed: int = 0,
    round_s: float = 10.0,
    metric: dict[str, Any] = ACCURACY,
    **more: Any,
) -> dict[str, Any]:
    """A run with an evaluation after each round of `round_s` s; its last value is the final one."""
    rounds = len(values)
    name = metric["name"]
    curve = {"t_s": [round_s * n for n in range(1, rounds + 1)], "window": list(range(1, rounds + 1)), name: values}
    return {
        "seed": seed, "final": {name: values[-1], "model": "mask"}, f"time_to_{name}": reached, "commit": "abc",
        "metric": metric, "device": {"kind": "cpu", "host_cores": 2}, "clients": [], "clients_total": 10,
        "ended": {"how": "horizon"}, "curves": {"mask": curve}, "simulated_s": round_s * rounds, "windows": rounds,
        **more,
    }  # fmt: skip

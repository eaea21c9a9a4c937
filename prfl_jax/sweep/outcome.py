"""The outcome of a sweep: a table of the best settings, the importance of each key, `sweep.json`."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from prfl_jax.sweep.settings import Objective, Sweep
from prfl_jax.sweep.trial import first_number, planned
from prfl_jax.system import environment
from prfl_jax.system.files import write_text

SCHEMA_VERSION = 1
SHOWN = 10  # trials in the table


def collect(study: optuna.Study, sweep: Sweep, objective: Objective) -> dict[str, Any]:
    """`sweep.json`: every trial with its last attempt, the best one, importances."""
    attempts: dict[int, list[optuna.trial.FrozenTrial]] = {}
    for trial in study.get_trials(deepcopy=False):
        if planned(trial):
            attempts.setdefault(first_number(trial), []).append(trial)
    trials = [_entry(number, tries) for number, tries in sorted(attempts.items())]
    judged = [entry for entry in trials if entry["value"] is not None]
    judged.sort(key=lambda entry: entry["value"], reverse=objective.direction == "maximize")
    return {
        "schema_version": SCHEMA_VERSION,
        "objective": sweep.judged_by(objective.metric),
        "direction": objective.direction,
        "sampler": sweep.sampler,
        "pruner": sweep.pruner,
        "config_hash": study.user_attrs["sweep"]["--config"],
        "space": json.loads(study.user_attrs["sweep"]["--space"]),
        "commit": environment.commit(),
        "versions": {**environment.versions(), "optuna": optuna.__version__},
        "best": [entry["trial"] for entry in judged[:SHOWN]],
        "importance": _importance(study),
        "trials": trials,
    }


def _entry(number: int, tries: list[optuna.trial.FrozenTrial]) -> dict[str, Any]:
    """One planned trial; where it was lost and tried again, the attempt that got furthest in its life."""
    last = next((t for t in tries if t.state in (TrialState.COMPLETE, TrialState.PRUNED)), tries[-1])
    finite = last.state == TrialState.COMPLETE and last.value is not None and math.isfinite(last.value)
    return {
        "trial": number,
        "state": last.state.name.lower(),
        "value": last.value if finite else None,
        "values": last.params or last.system_attrs["fixed_params"],
        "folder": last.user_attrs.get("folder"),
        "model": last.user_attrs.get("model"),
        "attempts": len(tries),
        "error": last.user_attrs.get("error"),
        "evaluations": [
            [step, value if math.isfinite(value) else None] for step, value in sorted(last.intermediate_values.items())
        ],
    }


def _importance(study: optuna.Study) -> dict[str, float] | None:
    """PED-ANOVA, shares of 1; None where there are too few trials."""
    done = [t for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if math.isfinite(t.value or 0.0)]
    finite = optuna.create_study(direction=study.direction)
    finite.add_trials(done)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = optuna.importance.get_param_importances(
                finite, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
            )
    except (ValueError, RuntimeError):
        return None
    return {key: float(share) for key, share in found.items() if math.isfinite(share)} or None


def table(outcome: dict[str, Any]) -> str:
    """The best trials and the importances, as Markdown."""
    keys = list(outcome["space"])
    by_number = {entry["trial"]: entry for entry in outcome["trials"]}
    lines = [
        f"| trial | {outcome['objective']} | of the | {' | '.join(keys)} | folder |",
        "|---|---|---|" + "---|" * (len(keys) + 1),
    ]
    for number in outcome["best"]:
        entry = by_number[number]
        values = " | ".join(_shown(entry["values"].get(key)) for key in keys)
        model = entry.get("model") or "?"
        lines.append(f"| {number} | {_shown(entry['value'])} | {model} | {values} | {entry['folder']} |")
    counts: dict[str, int] = {}
    for entry in outcome["trials"]:
        counts[entry["state"]] = counts.get(entry["state"], 0) + 1
    lines += ["", f"{len(outcome['trials'])} trials: " + ", ".join(f"{n} {state}" for state, n in counts.items())]
    if outcome["importance"]:
        lines.append("importance: " + ", ".join(f"{key} {share:.2f}" for key, share in outcome["importance"].items()))
    lines += [f"trial {entry['trial']} failed: {entry['error']}" for entry in outcome["trials"] if entry["error"]]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def write(study: optuna.Study, sweep: Sweep, objective: Objective) -> dict[str, Any]:
    """Writes `sweep.json` and `sweep.md` into the sweep's folder; returns the outcome."""
    outcome = collect(study, sweep, objective)
    folder: Path = sweep.out
    write_text(folder / "sweep.json", json.dumps(outcome, indent=1, allow_nan=False) + "\n")
    write_text(folder / "sweep.md", table(outcome) + "\n")
    return outcome

"""The end of an interval (PR-FL, Algorithm 1, lines 6-24): measures what the density policy needs, decides, prunes."""

from __future__ import annotations

from typing import Any

import numpy as np

from prfl_jax.density import OF_CLIENTS, OF_SERVER, OF_TRAINING, Evidence
from prfl_jax.runtime.active_run import ActiveRun
from prfl_jax.runtime.records import interval_record, masks_record


def decide_densities(run: ActiveRun) -> bool:
    """Decides the densities after the window at which the run stands, prunes, and writes the `interval` record.

    Returns:
      Whether the policy's stop rule holds.
    """
    at = run.at
    evidence = gather_evidence(run)
    with run.time.spent("decide"):
        decision = run.planner.policy.decide(evidence)
    at.interval_due = False
    at.train_loss.clear()
    run.write(interval_record(at.window, at.time_s, decision, evidence, run.sim.method.task.metric))
    if run.masks is not None:  # which change with what clients choose
        return decision.stop
    try:
        with run.time.spent("prune"):
            run.state, costs = run.sim.prune(run.state, decision.density_pct)
    except FloatingPointError as error:
        run.fail(f"{error} after window {at.window}")
        return False
    run.planner.set_costs(costs)
    return decision.stop


def change_masks(run: ActiveRun) -> None:
    """Changes the server's mask after the window at which the run stands."""
    at, masks = run.at, run.masks
    assert masks is not None
    with run.time.spent("prune"):
        run.state, changes = masks.after(run.state, at.window, at.pruned)
    pruned, at.pruned, at.masks_due = at.pruned, [], False
    run.write(masks_record(at.window, at.time_s, pruned, changes))
    run.planner.set_costs(masks.costs())


def gather_evidence(run: ActiveRun) -> Evidence:
    """What the policy needs: training losses as they came with the updates, the rest measured on the signal data."""
    needs, at = run.planner.policy.needs, run.at
    losses = _train_loss(run) if needs & OF_TRAINING else None
    needs -= OF_TRAINING
    if not needs or run.signal is None:
        return Evidence(train_loss=losses)
    wanted = needs | {kind.replace("score", "accuracy") for kind in needs}  # where a score is, the accuracy is too
    found: dict[str, Any] = {}
    with run.time.spent("eval"):
        if needs & OF_CLIENTS:
            found |= run.scorer.clients(run.state, run.planner.slot_windows(), at.slot_scores, run.signal)
        if needs & OF_SERVER:
            scores, metric = run.scorer.fedavg(run.state, at.weights, run.signal), run.sim.method.task.metric
            found["server_accuracy"] = scores.accuracy
            found["server_score"] = metric.score(scores)
    return Evidence(train_loss=losses, **{kind: value for kind, value in found.items() if kind in wanted})


def _train_loss(run: ActiveRun) -> np.ndarray:
    """`[M]` mean training losses of the arrivals since the last decision, NaN where a client had none."""
    found = np.full(run.config.clients.number, np.nan)
    for client, loss in run.at.train_loss.items():
        found[int(client)] = loss
    return found

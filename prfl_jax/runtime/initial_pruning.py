"""PruneFL's first stage: before window 1 the model is trained and pruned on one client's samples (Jiang et al. 2022).

As in PruneFL's public code, rounds of 10 steps over the same 10 batches, and the accuracy on these samples is looked at
in every tenth round until it is high enough to prune (`InitialPruning`). The client is the first one. Its batches are
not augmented; it does SGD, or the steps of `local.optimizer`, at `local.lr`. Nothing is sent: the server has what this
client learns. Its seconds of computing pass before window 1.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prfl_jax.clock import after
from prfl_jax.data.device import batch_indices, preprocess
from prfl_jax.engine.evaluate import make_eval_set
from prfl_jax.engine.placement import ALL
from prfl_jax.engine.state import State
from prfl_jax.local import Batches, LocalInput, LocalTask
from prfl_jax.local.settings_from_config import settings_from_config
from prfl_jax.local.sgd import sgd_round
from prfl_jax.runtime.active_run import ActiveRun
from prfl_jax.runtime.evaluated_models import EvaluatedModels
from prfl_jax.runtime.evaluation_grid import EvaluationGrid
from prfl_jax.runtime.first_stage import BATCHES, CLIENT, round_seconds
from prfl_jax.runtime.records import masks_record
from prfl_jax.runtime.shared_mask import SharedMask
from prfl_jax.runtime.simulation import Simulation
from prfl_jax.submodel.importance import init_importance
from prfl_jax.submodel.masks import apply_masks, put_back
from prfl_jax.submodel.prunefl import InitialPruning
from prfl_jax.submodel.scores import GRADIENT_SUMS
from prfl_jax.submodel.server_mask import held_masks
from prfl_jax.system import multi_process


def prune_initially(run: ActiveRun, grid: EvaluationGrid) -> None:
    """Does the stage: the server's model and mask, the clock's first second, costs, and the record of the masks.

    A run that is stopped within it begins it again; it is the same then, since it is drawn from the seed alone. Where
    its horizon lies within it the run ends there with W_0 and a full mask, since nobody has been sent another one.

    Args:
      grid: answers the points of time that pass with W_0.

    Raises:
      Interrupted: a signal came; the run is as it was before.
    """
    masks, horizon = run.sim.masks(), run.config.horizon_s
    assert isinstance(masks, SharedMask) and isinstance(run.masks, SharedMask)
    with run.time.spent("steady"):
        state, changes, seconds = _Stage(run, masks).run()
    beyond = horizon is not None and after(seconds, horizon)
    grid.answer(horizon if beyond else seconds, inclusive=beyond or not seconds)  # type: ignore[arg-type]
    if beyond and run.at.ended is None:
        run.end("horizon", f"within the first stage, round {changes.rounds} of at most {masks.first_rounds}")
        changes = dataclasses.replace(run.masks.changes(False, changes.rounds), initial_over=False)
        run.write(masks_record(0, horizon, [], changes))  # type: ignore[arg-type]
    if run.at.ended is not None:
        return
    run.state, run.masks, masks.first_rounds = state, masks, 0
    run.at.time_s, run.at.last_eval = seconds, None
    run.planner.begin_at(seconds, run.sim.copied_clock)
    run.planner.set_costs(masks.costs())
    run.write(masks_record(0, seconds, [], changes))


class _Stage:
    """The stage of a run; of it only `masks` are changed, which are not the run's yet."""

    def __init__(self, run: ActiveRun, masks: SharedMask) -> None:
        self._run, self._masks, self._sim, self._config = run, masks, run.sim, run.config
        place = run.sim.placement
        self._round = place.jit_global(functools.partial(local_round, run.sim), ALL)
        rows = place.jit_global(
            lambda data, key: batch_indices(data, key, CLIENT, 0, BATCHES, run.config.local.batch_size), ALL
        )
        taken = place.jit_global(lambda data, rows: (data.x[rows], data.y[rows]), ALL)(
            run.data, rows(run.data, run.sim.initial_keys.data)
        )
        self._batches = taken
        x, y = map(multi_process.fetch, taken)
        flat = (x.reshape(-1, *x.shape[2:]), y.reshape(-1, *y.shape[2:]))
        self._samples = make_eval_set(*flat, run.config.eval.batch_size, place)
        self._models = EvaluatedModels(run.sim)
        self._schedule = InitialPruning(
            run.sim.dataset.num_classes, every=masks.settings.interval, most_rounds=masks.first_rounds
        )

    def run(self) -> tuple[State, Any, float]:
        """(the state after it, the change of the masks, simulated s that it takes)."""
        run, masks, schedule, horizon = self._run, self._masks, self._schedule, self._config.horizon_s
        state, seconds, begun, held = run.state, 0.0, None, list[int]()
        squares, round_s, changed = self._no_squares(), self._round_s(), False
        for number in range(1, schedule.most_rounds + 1):
            run.check()
            if begun is None and (number - 1) % schedule.look_every == 0 and schedule.begins(self._accuracy(state)):
                begun = number
            model = state.params, state.levels, state.fixed
            params, squares = self._round(*model, self._batches, squares, run.sim.keys.dropout, np.int32(number))
            state, seconds = state._replace(params=params), seconds + round_s
            if begun is not None and schedule.prunes(number, begun):
                state, again = masks.first_step(state, squares)
                squares, round_s, changed = self._no_squares(), self._round_s(), changed or again
                held.append(int(masks.held.sum()) + self._sim.method.size.fixed)
                if schedule.ends(number, held):
                    break
            if horizon is not None and after(seconds, horizon):
                break
        # what clients keep for themselves (`model.state=local`) is not learned for them
        layout, stays = self._sim.method.layout, self._sim.method.stays
        params = layout.with_leaves(state.params, layout.leaves_at(run.state.params, stays))
        return state._replace(params=params), masks.changes(changed, rounds=number), seconds

    def _no_squares(self) -> Any:
        layout, place = self._sim.method.layout, self._sim.placement
        return place.jit_global(lambda: init_importance(layout, GRADIENT_SUMS).total, ALL)()

    def _accuracy(self, state: State) -> float:
        """Of the model under the mask, on the samples."""
        held = self._models.of_server(state, state.params)
        return self._sim.evaluator(held, self._samples, self._run.check).accuracy

    def _round_s(self) -> float:
        """Simulated s of a round under the present mask."""
        return round_seconds(self._config, self._sim.method.size, self._masks.held)


def local_round(
    sim: Simulation, params: Any, levels: Any, fixed: Any, samples: Any, squares: Any, key: jax.Array, number: Any
) -> tuple[Any, Any]:
    """A round of the stage: (the server's model, where what the mask leaves out stays, the squares so far); traced.

    Args:
      samples: the batches `[10, B, ...]` as they are stored.
      squares: of the gradients of all steps since the last pruning, held or not, and one sum for what is never pruned.
    """
    config, method = sim.config, sim.method
    settings = dataclasses.replace(
        settings_from_config(config, method.work), steps=BATCHES, prox_mu=0.0, keeps_moments=False,
        square_gradients=True, sum_gradients=True,
    )  # fmt: skip
    x, y = preprocess(samples[0], config.data.normalize), samples[1]
    masks = held_masks(levels)
    given = LocalInput(
        params=apply_masks(method.layout, params, masks),
        masks=masks,
        batches=Batches(one=lambda step: (x[step], y[step]), all=lambda: (x, y)),
        lr=jnp.float32(config.local.lr),
        key=jax.random.fold_in(jax.random.fold_in(key, config.clients.number), number),
    )
    with jax.default_matmul_precision(method.matmul):
        result = sgd_round(LocalTask(method.model.bound(fixed), method.loss, method.layout, settings), given)
    return put_back(method.layout, result.params, masks, params), tuple(map(jnp.add, squares, result.squares))

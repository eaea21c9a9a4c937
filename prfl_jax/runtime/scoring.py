"""`Scorer`: evaluates the server model by MaskFedAvg, the one by FedAvg, and the clients' models in the buffer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from prfl_jax.aggregate import find_aggregation
from prfl_jax.engine.evaluate import EvalSet
from prfl_jax.engine.method import slots
from prfl_jax.engine.state import State
from prfl_jax.models.variables import CLIENTS
from prfl_jax.runtime.evaluated_models import EvaluatedModels
from prfl_jax.runtime.simulation import Simulation
from prfl_jax.tasks import Scores


class Scorer:
    """Evaluates the models in a simulation's state.

    Args:
      simulation: whose state it is.
      check: called between device calls, so that a signal need not wait for a whole data set.

    Attributes:
      one_model: whether the method's two server models are the same one.
    """

    def __init__(self, simulation: Simulation, check: Callable[[], None]) -> None:
        self._sim, self._check, self._models = simulation, check, EvaluatedModels(simulation)
        aggregation = simulation.config.aggregation
        self.one_model = find_aggregation(aggregation.name).one_model(aggregation)

    def _score(self, state: State, params: Any, data: EvalSet) -> Scores:
        evaluate = self._sim.evaluator
        if not self._models.personal:
            return evaluate(self._models.of_server(state, params), data, self._check)
        shares, scores = [], []
        for share, model in self._models.of_clients(state, params):
            shares.append(share)
            scores.append(evaluate(model, data, self._check))
        return Scores.mean_of(shares, scores)

    def fedavg(self, state: State, weights: list[float], data: EvalSet) -> Scores:
        """Scores of FedAvg(B), the paper's second server model (Algorithm 1, line 16); of W where the two are the same.

        Args:
          weights: `[S]` of the slots at the last close; empty before the first.
        """
        return self._score(state, self._fedavg_model(state, weights), data)

    def models(self, state: State, weights: list[float]) -> dict[str, Any]:
        """Both server models by name, as NumPy arrays; the same one twice where the two are the same.

        Where clients have layers of their own, these are under `CLIENTS`, `[M, ...]` by path.
        """
        mask = self._whole(state, state.params)
        own = mask if self.one_model else self._whole(state, self._fedavg_model(state, weights))
        return {"mask": mask, "fedavg": own}

    def both(self, state: State, weights: list[float], data: EvalSet) -> dict[str, Scores]:
        """Scores of both server models, by their names in records: `mask` and `fedavg`."""
        mask = self._score(state, state.params, data)
        return {"mask": mask, "fedavg": mask if self.one_model else self.fedavg(state, weights, data)}

    def own_models(self, state: State, data: EvalSet) -> list[Scores]:
        """Scores of each client's own model; [] unless clients have masks of their own."""
        if not self._models.own_masks:
            return []
        models = (self._models.of_own_masks(state, client) for client in range(len(self._sim.split.clients)))
        return [self._sim.evaluator(model, data, self._check) for model in models]

    def _fedavg_model(self, state: State, weights: list[float]) -> Any:
        if self.one_model:
            return state.params
        return self._sim.fedavg_model(state, weights or [0.0] * slots(self._sim.config))

    def _whole(self, state: State, params: Any) -> Any:
        """A server model with the fixed variables, as NumPy arrays."""
        model = jax.tree.map(np.array, self._models.of_server(state, params))
        own = traverse_util.unflatten_dict(self._models.own_layers(state), sep="/")
        return {**model, CLIENTS: own} if own else model

    def clients(
        self, state: State, filled: list[int], known: dict[str, list[Any]], data: EvalSet
    ) -> dict[str, np.ndarray]:
        """Evaluates the model in each client's slot; an unchanged slot is not evaluated again.

        Args:
          state: it holds the slots.
          filled: `[M]` window in which each slot was filled last, 0 for an empty one.
          known: client -> [window, accuracy, mean loss, score] of earlier evaluations; brought up to date.

        Returns:
          `client_accuracy`, `client_loss` and `client_score`, each `[M]`, as in `Evidence`; NaN for an empty slot and
          where the loss is not finite (as of a rejected update).
        """
        metric = self._sim.method.task.metric
        found = np.full((3, len(filled)), np.nan)
        for client, window in enumerate(filled):
            if not window:
                continue
            entry = known.get(str(client), [])
            if len(entry) != 4 or entry[0] != window:  # of an earlier version: without the score
                slot = self._sim.placement.slot(client)
                update = self._sim.evaluator.take(state.buffer, slot)
                scores = self._sim.evaluator(self._models.of_client(state, update, client), data, self._check)
                values: tuple[float | None, ...] = (None, None, None)
                if math.isfinite(scores.mean_loss):
                    values = (scores.accuracy, scores.mean_loss, metric.score(scores))
                entry = known[str(client)] = [window, *values]
            if entry[1] is not None:
                found[:, client] = entry[1:]
        return dict(zip(("client_accuracy", "client_loss", "client_score"), found, strict=True))

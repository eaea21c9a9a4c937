"""The models that are evaluated: the server's as it is, with recomputed statistics, or with each client's own layers.

Which of these is `model.state`'s choice; models without state are evaluated as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from prfl_jax.data.device import preprocess
from prfl_jax.engine.placement import ALL
from prfl_jax.engine.state import State
from prfl_jax.models import STATES, statistics
from prfl_jax.models.variables import FIXED, whole, with_state
from prfl_jax.runtime.simulation import Simulation


class EvaluatedModels:
    """Makes of a model's params what is evaluated and saved, with the fixed variables.

    Args:
      simulation: whose model it is.

    Attributes:
      personal: whether each client has its own model.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._sim = simulation
        use = STATES.find(simulation.config.model.state)
        self.personal, self._recomputed = use.personal, use.recomputed

    def of_server(self, state: State, params: Any) -> Any:
        """A server model; where clients have their own, its shared part, with layers that nobody trains."""
        return self._ready(whole(params, state.fixed))

    def of_client(self, state: State, params: Any, client: int) -> Any:
        """A model that a client has sent, or W, as that client has it."""
        if self.personal:
            params = self._sim.method.layout.with_leaves(params, self._own_layers(state, client))
        return self._ready(whole(params, state.fixed))

    def of_clients(self, state: State, params: Any) -> Iterator[tuple[float, Any]]:
        """(share of the training samples, model) of each client."""
        sizes = np.array([len(own) for own in self._sim.split.clients], np.float64)
        for client, share in enumerate((sizes / sizes.sum()).tolist()):
            yield share, self.of_client(state, params, client)

    def own_layers(self, state: State) -> dict[str, Any]:
        """{path: `[M, ...]`} the layers that stay with each client, as NumPy arrays; {} where none do."""
        if not self.personal:
            return {}
        each = [self._own_layers(state, client) for client in range(len(self._sim.split.clients))]
        return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *each)

    def _own_layers(self, state: State, client: int) -> Any:
        place = client if self._sim.placement.count == 1 else self._sim.placement.slot(client)
        return self._sim.evaluator.take(state.clients.layers, place)

    def _ready(self, tree: Any) -> Any:
        return self._with_statistics(tree, self._batches) if self._recomputed else tree

    @functools.cached_property
    def _batches(self) -> Any:
        """`[K, B, ...]`: all clients' samples in an order drawn from the seed, less what fills no batch."""
        sim = self._sim
        rows = np.random.default_rng(sim.config.seed).permutation(np.concatenate(sim.split.clients))
        size = sim.config.local.batch_size  # what training normalises by
        count = len(rows) // size
        x = sim.dataset.x_train[rows[: count * size]]
        return sim.placement.put(x.reshape(count, size, *x.shape[1:]), ALL)

    @functools.cached_property
    def _with_statistics(self) -> Any:
        """(whole tree, batches) -> the tree with the statistics of those; compiled."""
        method, normalize = self._sim.method, self._sim.config.data.normalize
        model, matmul = method.model, method.matmul

        def recompute(tree: Any, batches: Any) -> Any:
            fixed = tree.get(FIXED, {})
            params = {name: part for name, part in tree.items() if name != FIXED}
            with jax.default_matmul_precision(matmul):
                found = statistics(model.bound(fixed), params, batches, lambda x: preprocess(x, normalize))
            return whole(with_state(params, found), fixed)

        return self._sim.placement.jit_global(recompute, ALL)

"""The models that are evaluated: the server's as it is, with recomputed statistics, or with each client's own layers.

Which of these is `model.state`'s choice; models without state are evaluated as they are. Where the server has a mask
that it sends to all clients, its model is what that mask holds; where clients have masks too, each has its own model.
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
from prfl_jax.local.personal import OwnModel, joined
from prfl_jax.models import STATES, statistics
from prfl_jax.models.variables import FIXED, whole, with_state
from prfl_jax.runtime.simulation import Simulation
from prfl_jax.submodel import find_submodel
from prfl_jax.submodel.masks import apply_masks, unpack_masks
from prfl_jax.submodel.server_mask import held_masks
from prfl_jax.system.host_offload import fetch


class EvaluatedModels:
    """Makes of a model's params what is evaluated and saved, with the fixed variables.

    Args:
      simulation: whose model it is.

    Attributes:
      personal: whether each client has its own model in place of the server's.
      own_masks: whether each client has its own model beside the server's.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._sim = simulation
        use = STATES.find(simulation.config.model.state)
        self.personal, self._recomputed = use.personal, use.recomputed
        self.own_masks = find_submodel(simulation.config.submodel).masks_of_clients

    def of_server(self, state: State, params: Any) -> Any:
        """A server model; where clients have their own, its shared part, with layers that nobody trains."""
        return self._ready(whole(self._held(state, params), state.fixed))

    def of_client(self, state: State, params: Any, client: int) -> Any:
        """A model that a client has sent, or the server's, as that client has it."""
        if self.personal:
            params = self._sim.method.layout.with_leaves(params, self._own_layers(state, client))
        return self._ready(whole(params, state.fixed))

    def of_clients(self, state: State, params: Any) -> Iterator[tuple[float, Any]]:
        """(share of the training samples, model) of each client."""
        params = self._held(state, params)
        sizes = np.array([len(own) for own in self._sim.split.clients], np.float64)
        for client, share in enumerate((sizes / sizes.sum()).tolist()):
            yield share, self.of_client(state, params, client)

    def of_own_masks(self, state: State, client: int) -> Any:
        """A client's own model: Eq. 6, of the last models of server and client, under the client's own masks."""
        place = np.int32(self._sim.placement.slot(client))
        return self.of_client(state, self._own(state.params, state.levels, state.clients.work, place), client)

    def own_layers(self, state: State) -> dict[str, Any]:
        """{path: `[M, ...]`} the layers that stay with each client, as NumPy arrays; {} where none do."""
        if not self.personal:
            return {}
        each = [self._own_layers(state, client) for client in range(len(self._sim.split.clients))]
        return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *each)

    def _own_layers(self, state: State, client: int) -> Any:
        return self._sim.evaluator.take(state.clients.layers, self._sim.placement.slot(client))

    def _held(self, state: State, params: Any) -> Any:
        """w_s m_s of server models w_s; the model itself where the server has no mask for all clients."""
        return params if self._sim.method.submodels.server_mask is None else self._under_mask(params, state.levels)

    @functools.cached_property
    def _under_mask(self) -> Any:
        """(params, levels) -> the params that the server's mask holds, else 0; compiled."""
        layout = self._sim.method.layout
        return self._sim.placement.jit_global(
            lambda params, levels: apply_masks(layout, params, held_masks(levels)), ALL
        )

    @functools.cached_property
    def _own(self) -> Any:
        """(params, levels, `OwnModel` of all clients, a client's place) -> the client's own model; compiled."""
        layout = self._sim.method.layout

        def own(params: Any, levels: Any, kept: OwnModel, place: Any) -> Any:
            weights, bits = (tuple(fetch(leaf, place) for leaf in stack) for stack in (kept.weights, kept.bits))
            local = joined(layout, params, held_masks(levels), weights)
            return apply_masks(layout, local, unpack_masks(layout, bits))

        return self._sim.placement.jit_global(own, ALL)

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

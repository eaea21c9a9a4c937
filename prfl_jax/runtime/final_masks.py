"""The masks that a run leaves in `masks.npz`, from its state on the devices."""

from __future__ import annotations

import numpy as np

from prfl_jax.engine.state import State
from prfl_jax.runtime.simulation import Simulation
from prfl_jax.submodel.saved_masks import SavedMasks, packed
from prfl_jax.submodel.server_mask import held_masks
from prfl_jax.system import multi_process


def final_masks(simulation: Simulation, state: State) -> SavedMasks | None:
    """The server's mask and, where they have any, the clients'; None where masks follow from densities."""
    method, layout = simulation.method, simulation.method.layout
    if method.submodels.server_mask is None:
        return None
    paths = [layout.paths[i] for i in layout.prunable]
    server = [packed(mask) for mask in held_masks(tuple(map(multi_process.fetch, state.levels)))]
    clients: dict[str, np.ndarray] = {}
    if method.work.own_masks:
        stacks = map(multi_process.fetch, state.clients.work.bits)
        clients = {path: simulation.placement.to_clients(stack) for path, stack in zip(paths, stacks, strict=True)}
    shapes = {layout.paths[i]: layout.shapes[i] for i in layout.prunable}
    return SavedMasks(shapes, dict(zip(paths, server, strict=True)), clients)

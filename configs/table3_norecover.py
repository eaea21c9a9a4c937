"""tmp"""

from ml_collections import config_dict

from prfl_jax import strategies
from prfl_jax.config import default_config


def get_config() -> config_dict.ConfigDict:
    """Time balance without recovery, fixed windows, delta split, no contention."""
    c = strategies.use(default_config(), "prfl_norecover")
    c.rounds = 10_000
    c.data.name = "femnist"
    c.data.partition = "writer"
    c.data.normalize = "inverted"
    c.model.name = "conv2"
    c.model.classes = 62
    c.model.size_mb = 26.5
    c.clients.sigma = 0.3
    c.server.contention = False
    c.window.first_waits_for_all = False
    c.window.dt_s = 19.25
    c.density.rule = "normalised"
    c.density.interval = 50
    c.density.min_density = 0.05
    c.transport.bytes = "density"
    return c

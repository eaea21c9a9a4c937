"""tmp"""

from ml_collections import config_dict

from prfl_jax import strategies
from prfl_jax.config import default_config


def get_config() -> config_dict.ConfigDict:
    """Full models, fixed windows, one copy, no contention."""
    c = strategies.use(default_config(), "fedavg")
    c.rounds = 10_000
    c.data.name = "femnist"
    c.data.partition = "writer"
    c.data.normalize = "inverted"
    c.model.name = "conv2"
    c.model.classes = 62
    c.model.size_mb = 26.5
    c.clients.sigma = 0.3
    c.server.contention = False
    c.window.close = "fixed"
    c.window.first_waits_for_all = False
    c.window.dt_s = 19.25
    c.transport.bytes = "density"
    return c

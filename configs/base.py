"""Settings that the configs of PR-FL's own experiments share: they load this file, which is no config itself.

They are those of the paper (Table II, section IV-A), unless a comment says otherwise.
"""

from ml_collections import config_dict

from prfl_jax import strategies
from prfl_jax.config import default_config


def paper(strategy: str) -> config_dict.ConfigDict:
    """Returns a strategy's config with the paper's learning rate, interval and patience, equal on both data sets."""
    c = strategies.use(default_config(), strategy)
    c.local.lr = 0.25
    c.density.interval = 50
    c.density.patience = 10
    return c


def conv2_by_writer(strategy: str) -> config_dict.ConfigDict:
    """Adds images partitioned by writer, and the paper's Conv2 with 62 outputs, 6,603,710 parameters and 26.5 MB."""
    c = paper(strategy)
    c.data.partition = "writer"
    c.data.writers = 193
    c.model.name = "conv2"
    c.model.classes = 62
    c.model.size_mb = 26.5
    c.density.min_density = 0.05
    return c


def femnist_column() -> config_dict.ConfigDict:
    """Returns PR-FL as in the paper's FEMNIST column: 140,000 simulated s in 10,000 windows of 14 s."""
    c = conv2_by_writer("prfl")
    c.rounds = 10_000
    c.horizon_s = 140_000.0
    c.eval_every_s = 700.0
    c.window.dt_s = 14.0
    return c


def table3(strategy: str) -> config_dict.ConfigDict:
    """Returns one row of Table III for the clock alone: FEMNIST's model, bytes by density, no contention at the server.

    The paper does not give this table's window; 19.25 s is fitted to its first row (`table3_fedasyn.py`).
    """
    c = conv2_by_writer(strategy)
    c.rounds = 10_000
    c.data.name = "femnist"
    c.data.normalize = "inverted"
    c.clients.sigma = 0.3
    c.server.contention = False
    c.window.dt_s = 19.25
    c.transport.bytes = "density"
    return c

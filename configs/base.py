"""Settings that several configs share: they load this file, which is no config itself.

They are those of the paper (Table II, section IV-A), unless a docstring or a comment says otherwise.
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


def series(name: str) -> config_dict.ConfigDict:
    """Returns PR-FL with a GRU on a `.ts` file: five clients, Dirichlet(1.0), other methods to the same second.

    The clients are every other one of Table II, and all speeds a hundredth of that table's: the model has 0.2 MB.
    """
    c = strategies.use(default_config(), "prfl")
    c.eval.thresholds = (0.9, 0.95)
    c.compare = ("fedavg", "fedasyn", "fedbuff")
    c.data.name = name
    c.data.partition = "dirichlet"
    c.data.alpha = 1.0
    c.data.normalize = "standard"
    c.model.name = "gru"
    c.model.loss = "softmax"
    c.clients.number = 5
    c.clients.up_mb_s = (0.05, 0.03, 0.015, 0.006, 0.005)
    c.clients.down_mb_s = (0.2, 0.12, 0.06, 0.025, 0.02)
    c.server.up_mb_s = 0.2
    c.server.down_mb_s = 1.0
    c.local.batch_size = 5
    c.window.dt_s = 6.0  # about the fastest client's cycle, so that time saved by pruning is not spent waiting
    c.density.patience = 1
    return c


def language_model(name: str) -> config_dict.ConfigDict:
    """Returns PR-FL on the next token of a text, with Adam at the clients and a short run's density decisions."""
    c = strategies.use(default_config(), "prfl")
    c.task.name = "language_model"
    c.data.name = name
    c.data.holdout_max = 50
    c.data.test_limit = 500
    c.model.loss = "softmax"
    c.local.steps = 20
    c.local.lr = 0.01
    c.local.optimizer = "adam"
    c.submodel.importance = "weight"  # squared gradients are defined for SGD
    c.density.interval = 5
    c.density.patience = 1
    c.density.delta_rho = 0.35
    c.engine.unroll = False  # compiles in half the time, and is as fast
    return c

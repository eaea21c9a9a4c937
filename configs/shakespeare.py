"""PR-FL on text: the next character in Shakespeare's plays, ten clients of fourteen speaking roles each.
"""

from ml_collections import config_dict

from prfl_jax import strategies
from prfl_jax.config.defaults import default_config


def get_config() -> config_dict.ConfigDict:
    """Returns PR-FL with LEAF's character LSTM at full width on the 139 longest roles."""
    c = strategies.use(default_config(), "prfl")
    c.rounds = 80
    c.eval_every_s = 5.0
    c.task.name = "language_model"
    c.data.name = "shakespeare"
    c.data.partition = "writer"
    c.data.writers = 139
    c.data.holdout_max = 50
    c.data.test_limit = 500
    c.model.name = "char_lstm"
    c.model.loss = "softmax"
    c.local.steps = 20
    c.local.batch_size = 5
    c.local.lr = 0.01
    c.local.optimizer = "adam"
    c.submodel.importance = "weight"  # squared gradients are defined for SGD
    c.window.dt_s = 0.85  # about the fastest client's cycle, so that time saved by pruning is not spent waiting
    c.density.interval = 5
    c.density.patience = 1
    c.density.min_delta = 1.0  # of perplexity
    c.density.delta_rho = 0.35
    c.eval.thresholds = (12.0, 8.0)
    c.engine.unroll = False  # compiles in half the time, and is as fast
    return c

"""FedAvg with one speaking role a client: 139 clients, as many as in LEAF's smaller Shakespeare, ten of them a round.
"""

from ml_collections import config_dict

from prfl_jax import strategies
from prfl_jax.config import load_beside

shakespeare = load_beside(__file__, "shakespeare.py")


def get_config() -> config_dict.ConfigDict:
    """Returns FedAvg on the same roles, each a client of its own, with a cohort of ten drawn for each round."""
    c = strategies.use(shakespeare.get_config(), "fedavg")
    c.rounds = 40
    c.eval_every_s = 100.0
    c.clients.number = 139
    c.clients.up_mb_s = (c.clients.up_mb_s * 14)[:139]  # Table II's speeds in turn
    c.clients.down_mb_s = (c.clients.down_mb_s * 14)[:139]
    c.window.cohort = 10
    return c

"""FedAvg on the next character in Shakespeare's plays, one speaking role a client: 139 clients, ten of them a round.

    python scripts/train.py --config=configs/shakespeare_roles.py --workdir=runs/shakespeare_roles

Roles, test samples, model and local work are those of `shakespeare.py`. 139 roles have more than 10,000 characters if
directions count, and 137 without them; the 139 longest ones have 96 to 612 windows for training. PR-FL decides
densities from all clients and takes no cohorts; --config.strategy=prfl --config.window.cohort=0 runs it with all 139 in
flight.

Time and result, seed 0, 2026-11-29: 5 min 45 s on one x86-64 core that other work shared; perplexity from 81.2 to 5.32,
next-character accuracy 49.7 %.
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

"""The clock alone with 100,000 clients, to measure the time that an event takes.

    python scripts/clock.py --config=configs/clock_many_clients.py --windows=10 --out=clock.json

Full models of 26.5 MB in windows of 14 s; the clients have the ten speeds of Table II in turn. The server has Table
II's speed for every ten clients, so that a client arrives as often as with ten clients. For 1,000 clients:
--config.clients.number=1000 --config.server.up_mb_s=2000 --config.server.down_mb_s=10000

Time and result, on one x86-64 core, 2026-11-20: ten windows took 7.3 s, with 1,013,958 events of 7 microseconds each (3
microseconds with 1,000 clients).
"""

from ml_collections import config_dict

from prfl_jax import strategies
from prfl_jax.config.defaults import default_config


def get_config() -> config_dict.ConfigDict:
    """Returns FedAsyn in fixed windows, with one copy of the model for all clients and contention at the server."""
    c = strategies.use(default_config(), "fedasyn")
    c.rounds = 10
    c.model.classes = 62
    c.model.size_mb = 26.5
    c.clients.number = 100_000
    c.server.up_mb_s, c.server.down_mb_s = 200_000.0, 1_000_000.0
    c.window.dt_s = 14.0
    return c

"""The clock alone with 100,000 clients: what an event costs, whatever the number of clients.

    python scripts/clock.py --config=configs/clock_many_clients.py --windows=10 --out=clock.json

Full models of 26.5 MB in windows of 14 s, Table II's speeds in turn. The server has Table II's speed for every ten
clients and shares it out, so each client arrives as often as with ten. For another number of clients:
--config.clients.number=1000 --config.server.up_mb_s=2000 --config.server.down_mb_s=10000

Time and result, one x86-64 core, 2026-11-20: ten windows 7.3 s, 1,013,958 events, 7 microseconds each (with 1,000
clients 3).
"""

from ml_collections import config_dict

from prfl_jax import strategies
from prfl_jax.config.defaults import default_config


def get_config() -> config_dict.ConfigDict:
    """FedAsyn by window, one copy, contention at the server."""
    c = strategies.use(default_config(), "fedasyn")
    c.rounds = 10
    c.model.classes = 62
    c.model.size_mb = 26.5
    c.clients.number = 100_000
    c.server.up_mb_s, c.server.down_mb_s = 200_000.0, 1_000_000.0
    c.window.dt_s = 14.0
    return c

"""The table of methods, and how a row of it becomes a config.

A row names one choice for each seam (sub-model, density, aggregation, window,
transport, local work); the settings inside a seam (`window.dt_s`,
`aggregation.staleness`, ...) are shared by all rows, so that methods which are
compared differ in nothing else. `use` writes a row into a config, after which a
config file or the command line may override single keys.

Each family of methods has a file with its rows and its paper; a new method is a row in
such a file, and its name in `METHODS` below. When windows close (what `each_arrival`
means), which event comes first at one moment, and what is counted in bytes:
docs/clock.md.
"""

from __future__ import annotations

import copy

from ml_collections import config_dict

from prfl_jax.aggregate.weights import STALENESS
from prfl_jax.strategies import (
    edge_pruning,
    fedasync,
    fedavg,
    fedbuff,
    fedfix,
    fedmp,
    fedopt,
    fedprox,
    fedrolex,
    fiarse,
    fjord,
    flexcom,
    heterofl,
    prfl,
    scaffold,
    shared_masks,
)
from prfl_jax.strategies.method import Method, WindowChoice
from prfl_jax.system.errors import UserError

__all__ = [
    "METHODS",
    "ROWS",
    "Method",
    "WindowChoice",
    "for_comparison",
    "forgotten",
    "row",
    "staleness_a",
    "use",
]


# The methods by `strategy`; of two that are alike an ablation stands below the method that it is compared with.
METHODS: dict[str, Method] = {
    **prfl.METHODS,
    **fedavg.METHODS,
    **fedasync.METHODS,
    **fedfix.METHODS,
    **fedbuff.METHODS,
    **fedopt.METHODS,
    **fedprox.METHODS,
    **flexcom.METHODS,
    **fedmp.METHODS,
    **scaffold.METHODS,
    **heterofl.METHODS,
    **fjord.METHODS,
    **fedrolex.METHODS,
    **fiarse.METHODS,
    **edge_pruning.METHODS,
    **shared_masks.METHODS,
}

# strategy -> {dotted config key: value}
ROWS: dict[str, dict[str, str | bool]] = {name: method.keys() for name, method in METHODS.items()}


def row(name: str) -> dict[str, str | bool]:
    """The config keys of a strategy.

    Raises:
      UserError: there is no such strategy; the text lists those there are.
    """
    if not isinstance(name, str) or name not in ROWS:
        raise UserError(f"config.strategy={name!r}: allowed is one of {', '.join(ROWS)}")
    return ROWS[name]


def staleness_a(strategy: str, kind: str) -> float:
    """The constant a of s(tau) where a config gives none: the method's, else that of the kind of staleness."""
    return METHODS[strategy].staleness_a.get(kind, STALENESS.find(kind).a)


def use(cfg: config_dict.ConfigDict, name: str) -> config_dict.ConfigDict:
    """Makes `cfg` (changed in place and returned) a config of that strategy.

    Call it in a config file before setting keys of the six seams: a later
    assignment overrides the row, an earlier one is overwritten.

    Examples:
      >>> from prfl_jax.config import default_config
      >>> config = use(default_config(), "fedbuff")
      >>> config.aggregation.name, config.window.close, config.window.dispatch
      ('fedbuff', 'k_arrivals', 'on_arrival')

    Raises:
      UserError: there is no such strategy.
    """
    values = row(name)
    cfg.strategy = name
    cfg.update_from_flattened_dict(values)
    return cfg


def for_comparison(cfg: config_dict.ConfigDict, name: str) -> config_dict.ConfigDict:
    """A copy of `cfg` that runs another strategy to the horizon, all else equal.

    The copy is compared with no other strategy and does not stop early: a run that is
    compared goes to the horizon.
    """
    other = use(copy.deepcopy(cfg), name)
    other.compare = ()
    other.stop_early = False
    return other


def forgotten(cfg: config_dict.ConfigDict) -> str | None:
    """The text of an error if `cfg.strategy` was assigned without its row, else None.

    A row may be overridden key by key, but a config that differs from PR-FL in
    not one of the keys that set its strategy apart is PR-FL under another name.
    """
    apart = {key: value for key, value in row(cfg.strategy).items() if value != ROWS["prfl"][key]}
    flat = {key: cfg[key.split(".")[0]][key.split(".")[1]] for key in apart}
    if not apart or any(flat[key] != ROWS["prfl"][key] for key in apart):
        return None
    key, value = next(iter(apart.items()))
    return (
        f"config.strategy={cfg.strategy!r} with {key}={flat[key]!r}, as in prfl: allowed is {value!r}; "
        f"in a config file call strategies.use(cfg, {cfg.strategy!r}) instead of assigning cfg.strategy"
    )

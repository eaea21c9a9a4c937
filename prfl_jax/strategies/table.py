"""A method is six choices: the table of them.

A row names one choice for each seam (sub-model, density, aggregation, window,
transport, local work); the settings inside a seam (`window.dt_s`,
`aggregation.staleness`, ...) are shared by all rows, so that methods which are
compared differ in nothing else. `use` writes a row into a config, after which a
config file or the command line may override single keys.

When windows close (what `each_arrival` means), who goes first where much happens at
one moment, and what is counted in bytes: docs/clock.md.
"""

from __future__ import annotations

import copy
import dataclasses

from ml_collections import config_dict

from prfl_jax.aggregate.weights import STALENESS
from prfl_jax.system.errors import UserError

__all__ = [
    "METHODS",
    "ROWS",
    "Method",
    "WindowChoice",
    "aggregation_in_force",
    "for_comparison",
    "forgotten",
    "row",
    "staleness_a",
    "use",
]


@dataclasses.dataclass(frozen=True)
class WindowChoice:
    """The window seam, itself three choices (docs/clock.md).

    Attributes:
      close: when a window ends.
      first_waits_for_all: whether the first one waits for every client.
      dispatch: who is sent the new model, and when.
    """

    close: str
    first_waits_for_all: bool
    dispatch: str


@dataclasses.dataclass(frozen=True)
class Method:
    """One row.

    Attributes:
      submodel, density, aggregation, window, transport, local: the six choices, by name.
      source: where the method comes from.
    """

    submodel: str
    density: str
    aggregation: str
    window: WindowChoice
    transport: str
    local: str
    source: str

    def keys(self) -> dict[str, str | bool]:
        """The row as dotted config keys; every row sets the same ones, so that switching leaves nothing behind."""
        return {
            "submodel.name": self.submodel,
            "density.name": self.density,
            "aggregation.name": self.aggregation,
            "window.close": self.window.close,
            "window.first_waits_for_all": self.window.first_waits_for_all,
            "window.dispatch": self.window.dispatch,
            "transport.name": self.transport,
            "local.name": self.local,
        }


FIXED = WindowChoice(close="fixed", first_waits_for_all=True, dispatch="window_end")
FIXED_FROM_THE_START = dataclasses.replace(FIXED, first_waits_for_all=False)
EVERYBODY = WindowChoice(close="all", first_waits_for_all=False, dispatch="window_end")
EACH_ARRIVAL = WindowChoice(close="each_arrival", first_waits_for_all=False, dispatch="on_arrival")
K_ARRIVALS = WindowChoice(close="k_arrivals", first_waits_for_all=False, dispatch="on_arrival")

PRFL = Method(
    submodel="nested",
    density="recovery",
    aggregation="buffered_maskfedavg",
    window=FIXED,
    transport="delta",
    local="sgd",
    source="PR-FL, Algorithms 1-3",
)

FEDAVG = Method(
    submodel="full",
    density="full",
    aggregation="fedavg",
    window=EVERYBODY,
    transport="one_copy",
    local="sgd",
    source="McMahan et al. 2017, all clients in each round (PR-FL's Syn-FL)",
)


def _ablation(source: str, **choices: object) -> Method:
    return dataclasses.replace(PRFL, source=f"PR-FL, section IV-E, {source}", **choices)  # type: ignore[arg-type]


def _full_models(source: str, **choices: object) -> Method:
    return dataclasses.replace(FEDAVG, source=source, **choices)  # type: ignore[arg-type]


HETEROFL = Method(
    submodel="leading",
    density="tiers",
    aggregation="counted",
    window=EVERYBODY,
    transport="distinct",
    local="scaled_sgd",
    source="HeteroFL, Diao et al. 2021",
)

FJORD = dataclasses.replace(
    HETEROFL, local="ordered_sgd", source="FjORD, Horvath et al. 2021: each local step draws its width"
)

FEDROLEX = dataclasses.replace(
    HETEROFL, submodel="rolling", local="sgd", source="FedRolex, Alam et al. 2022: the kept channels roll each window"
)

FIARSE = dataclasses.replace(
    HETEROFL,
    submodel="magnitude",
    local="magnitude_sgd",
    source="FIARSE, Wu et al. 2024: the largest weights, anew at each local step",
)


def _recovering(row: Method) -> Method:
    """With PR-FL's recovery, in windows of fixed length."""
    source = f"PR-FL's recovery on top of {row.source}"
    return dataclasses.replace(row, window=FIXED, density="tiers_recovery", source=source)


# the methods, by `strategy`
METHODS: dict[str, Method] = {
    "prfl": PRFL,
    "prfl_norecover": _ablation("noRecover: densities stay where Eq. 2 puts them", density="time_balance"),
    "prfl_nobuff": _ablation("nobuff: only what arrived is averaged", aggregation="unbuffered_maskfedavg"),
    "prfl_fedavg": _ablation("fedavg: pruned weights count as 0", aggregation="buffered_fedavg"),
    "prfl_nores": _ablation("noRes: each sub-model is sent by itself", transport="distinct"),
    "prfl_syn": _ablation("syn: every window waits for all", window=EVERYBODY),
    "fedavg": FEDAVG,
    "fedasyn": _full_models(
        "FedAsyn of PR-FL's tables: mixing in order of arrival, windows of fixed length",
        aggregation="mixing",
        window=FIXED_FROM_THE_START,
    ),
    "fedasync": _full_models(
        "FedAsync, Xie et al. 2019: each arrival is mixed in at once",
        aggregation="mixing",
        window=EACH_ARRIVAL,
        transport="unicast",
    ),
    "fedfix": _full_models(
        "FedFix, Fraboni et al. 2023: windows of fixed length", aggregation="fedfix", window=FIXED_FROM_THE_START
    ),
    "fedbuff": _full_models(
        "FedBuff, Nguyen et al. 2022: a step after window.k arrivals", aggregation="fedbuff", window=K_ARRIVALS
    ),
    "heterofl": HETEROFL,
    "heterofl_windowed": dataclasses.replace(
        HETEROFL, window=FIXED, source="HeteroFL in windows of fixed length, as in PR-FL's tables"
    ),
    "heterofl_recovery": dataclasses.replace(
        HETEROFL,
        window=FIXED,
        density="tiers_recovery",
        source="PR-FL's recovery on top of HeteroFL; the 2026 follow-up to PR-FL found recovery to help any sub-models",
    ),
    "fjord": FJORD,
    "fjord_recovery": _recovering(FJORD),
    "fedrolex": FEDROLEX,
    "fedrolex_recovery": _recovering(FEDROLEX),
    "fiarse": FIARSE,
    "fiarse_recovery": _recovering(FIARSE),
}

# the constant a of s(tau) by strategy and kind of staleness, where its authors' is not that of `STALENESS`
OWN_STALENESS_A = {"fedasync": {"polynomial": 0.5}}

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
    """The constant a of s(tau) where a config gives none: the strategy's own, else that of the kind of staleness."""
    return OWN_STALENESS_A.get(strategy, {}).get(kind, STALENESS.find(kind).a)


def aggregation_in_force(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
    """`config.aggregation` with the number that stands for a constant which is not given."""
    group = config.aggregation.copy_and_resolve_references()
    if group.staleness_a is None:
        with group.unlocked():
            group.staleness_a = staleness_a(config.strategy, group.staleness)
    return group


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

    The copy compares with nobody, and does not stop early: a run that is
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

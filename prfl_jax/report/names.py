"""Formats strategies, server models, numbers and units as text for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Names of the server models: the one that is distributed, and FedAvg over the server's buffer (PR-FL).
CURVE_NAMES = {"mask": "MaskFedAvg model", "fedavg": "FedAvg(B) model"}
ONE_MODEL = "server model"  # of a method whose two server models are the same
MASKS_FILE = "masks.npz"  # in a run's folder, where masks are chosen during the run
_STRATEGY_NAMES = {
    "prfl": "PR-FL",
    "prfl_norecover": "PR-FL noRecover",
    "prfl_nobuff": "PR-FL nobuff",
    "prfl_fedavg": "PR-FL fedavg",
    "prfl_nores": "PR-FL noRes",
    "prfl_syn": "PR-FL syn",
    "fedavg": "FedAvg",
    "fedasyn": "FedAsyn",
    "fedasync": "FedAsync (each arrival)",
    "fedfix": "FedFix",
    "fedbuff": "FedBuff",
    "fedavgm": "FedAvgM",
    "fedadagrad": "FedAdagrad",
    "fedadam": "FedAdam",
    "fedyogi": "FedYogi",
    "flexcom": "FlexCom",
    "asyn_fl": "Asyn-FL",
    "fedmp": "FedMP",
    "fedmp_literal": "FedMP as printed",
    "fedmp_bsp": "FedMP with BSP",
    "up_fl": "UP-FL",
    "asyn_fedmp": "Asyn-FedMP",
    "fedmp_nested": "FedMP, nested",
    "fedmp_recovery": "PR-FL over filters",
    "fedmp_fedbuff": "FedMP in FedBuff's windows",
    "heterofl": "HeteroFL (synchronous)",
    "heterofl_windowed": "HeteroFL (windowed)",
    "heterofl_recovery": "HeteroFL + recovery",
    "fedprox": "FedProx",
    "scaffold": "SCAFFOLD",
    "layerwise": "edge pruning, layerwise",
    "threshold": "edge pruning, threshold",
    "layerwise_bandit": "edge pruning, FedMP's bandit",
    "prfl_personal": "PR-FL, personal masks",
    "prunefl": "PruneFL",
    "conventional": "PruneFL's first stage",
    "snip": "SNIP",
    "iterative": "iterative pruning",
}
STRATEGY_ORDER = {strategy: place for place, strategy in enumerate(_STRATEGY_NAMES)}  # in figures and tables


def strategy_name(strategy: str) -> str:
    """The name of a strategy as papers write it; an unknown strategy as it is."""
    return _STRATEGY_NAMES.get(strategy, strategy)


def model_files(headline: str, one_model: bool) -> dict[str, str]:
    """The file of each server model in a run's folder, by its name in a report.

    `final_model.npz` is the headline model, whose results the report gives. If both models are the same, it is both.
    """
    return {
        name: "final_model.npz" if one_model or name == headline else f"final_model_{name}.npz" for name in CURVE_NAMES
    }


def one_model(report: Mapping[str, Any]) -> bool:
    """Whether both server models of a run are the same; in reports that do not say so, whether the curves are equal."""
    files = report["model"].get("files")
    if files is not None:
        return len(set(files.values())) == 1
    mask, fedavg = (report["curves"][name]["accuracy"] for name in ("mask", "fedavg"))
    return bool(mask == fedavg)


def model_name(name: str, one: bool) -> str:
    """The name for people of the server model that a report calls `name`; `one`: as `one_model` gives it."""
    return ONE_MODEL if one else CURVE_NAMES[name]


def headline_name(report: Mapping[str, Any]) -> str:
    """`model_name` of the headline model, whose results are those of the run."""
    return model_name(report["final"]["model"], one_model(report))


def title_of(report: Mapping[str, Any]) -> str:
    """A line with the strategy, model, data, number of clients and seed of a run."""
    config = report["config"]
    data = config.get("data", {})
    parts = [
        strategy_name(report["strategy"]),
        report["model"]["name"],
        str(data.get("name", "")) + (f" ({data['partition']})" if data.get("partition") else ""),
        f"{report['clients_total']} clients",
        f"seed {report['seed']}",
    ]
    return ", ".join(part for part in parts if part)


def percent_text(share: float | None, digits: int = 1) -> str:
    """0.934 is "93.4 %"; None is "-"."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def number_text(value: float | None) -> str:
    """A plain number with four digits: 123.456 is "123.5", 12345.6 is "12,346"; None is "-"."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def seconds_text(seconds: float | None, missing: str = "-") -> str:
    """Simulated seconds with thousands separated: 12345.6 is "12,346 s"; below 10 s three digits: "0.0125 s"."""
    if seconds is None:
        return missing
    return f"{seconds:,.0f} s" if abs(seconds) >= 10 else f"{seconds:.3g} s"


def bytes_text(count: float | None) -> str:
    """Bytes as MB or GB (10^6, 10^9), three or four digits."""
    if count is None:
        return "-"
    unit, scale = ("GB", 1e9) if abs(count) >= 1e9 else ("MB", 1e6)
    value = count / scale
    return f"{value:,.0f} {unit}" if abs(value) >= 1000 else f"{value:.4g} {unit}"


def duration_text(seconds: float) -> str:
    """Seconds: "0.012 s", "8.4 s", "3 min 20 s", "2 h 05 min"."""
    if 0 < seconds < 1:
        return f"{seconds:.2g} s"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def density_text(density: float) -> str:
    """0.08 is ".08", 1.0 is "1"."""
    text = f"{density:.2f}".rstrip("0").rstrip(".")
    return text.removeprefix("0") or "0"

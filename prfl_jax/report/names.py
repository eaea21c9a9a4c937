"""How strategies, numbers and clients are written for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What curves are called: the distributed model, and FedAvg over the server's buffer (facts, Definitions).
CURVE_NAMES = {"mask": "MaskFedAvg model", "fedavg": "FedAvg(B) model"}
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
    "heterofl": "HeteroFL (synchronous)",
    "heterofl_windowed": "HeteroFL (windowed)",
    "heterofl_recovery": "HeteroFL + recovery",
}


def strategy_name(strategy: str) -> str:
    """The name of a strategy as papers write it, or as it is where none is known."""
    return _STRATEGY_NAMES.get(strategy, strategy)


def title_of(report: Mapping[str, Any]) -> str:
    """Strategy, model, data and seed of a run in one line."""
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


def seconds_text(seconds: float | None, missing: str = "-") -> str:
    """Simulated seconds with thousands separated: 12345.6 is "12,346 s"."""
    return missing if seconds is None else f"{seconds:,.0f} s"


def bytes_text(count: float | None) -> str:
    """Bytes as MB or GB (10^6, 10^9), three or four digits."""
    if count is None:
        return "-"
    unit, scale = ("GB", 1e9) if abs(count) >= 1e9 else ("MB", 1e6)
    value = count / scale
    return f"{value:,.0f} {unit}" if abs(value) >= 1000 else f"{value:.4g} {unit}"


def duration_text(seconds: float) -> str:
    """Host seconds: "8.4 s", "3 min 20 s", "2 h 05 min"."""
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

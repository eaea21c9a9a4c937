"""What masks that clients and server choose during a run held: retention over time, size, and the initial stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from prfl_jax.report.names import MASKS_FILE
from prfl_jax.report.series import Thinned, columns, thin

_POINTS = 1000
_CURVE = ("t_s", "window", "server", "clients_mean", "clients_min", "clients_max")
_BYTES = ("bytes_up", "bytes_down", "bytes_client_down")


class MaskTotals:
    """Sums up the changes of the masks; `section` and `of` are empty in a run without any."""

    def __init__(self) -> None:
        self._points: Thinned[tuple[Any, ...]] = Thinned(_POINTS)
        self._bytes = dict.fromkeys(_BYTES, 0)
        self._last: Mapping[str, Any] | None = None
        self._initial: dict[str, Any] | None = None

    def add_window(self, record: Mapping[str, Any]) -> None:
        """Adds the bytes of a window."""
        for name in _BYTES:
            self._bytes[name] += record[name]

    def add(self, record: Mapping[str, Any]) -> None:
        """Adds a change of the masks, which follows the record of its window."""
        clients = np.asarray(record["clients"], np.float64)
        spread = (float(clients.mean()), float(clients.min()), float(clients.max()))
        self._points.add((record["t_s"], record["window"], record["server"], *spread))
        self._last = record
        if record["stage"] == "initial":
            rounds = record.get("rounds", 1) + (0 if self._initial is None else self._initial["rounds"])
            self._initial = {
                "rounds": rounds,
                "ended": record["initial_over"],
                "t_s": record["t_s"],
                "retention": record["server"],
                **self._bytes,
            }

    def section(self, limit: int) -> dict[str, Any] | None:
        """`masks` of the report, the curve with about `limit` points."""
        if self._last is None:
            return None
        return {
            "retention": self._last["server"],
            "server_bytes": self._last["server_bytes"],
            "server_kib": self._last["server_bytes"] / 1024,
            "curve": columns(_CURVE, thin(self._points.rows(), limit)),
            "initial": self._initial,
            "file": MASKS_FILE,
        }

    def of(self, client: int) -> dict[str, float]:
        """`retention` of a client's entry."""
        return {} if self._last is None else {"retention": self._last["clients"][client]}


class HeldShares(NamedTuple):
    """Shares of the model's values that masks hold, each from its point of time on.

    Attributes:
      t_s: simulated s, ascending from 0, with the end of the run as last point.
      server: in the server's mask.
      clients: (mean, least, most) over the clients' own masks; None where they have none.
    """

    t_s: Sequence[float]
    server: Sequence[float]
    clients: tuple[Sequence[float], Sequence[float], Sequence[float]] | None


def held_shares(report: Mapping[str, Any]) -> HeldShares | None:
    """What the masks of a run held over simulated time; None where none are chosen during it."""
    if "masks" not in report:
        return None
    curve = report["masks"]["curve"]
    names = ("server",) if server_mask_alone(report) else ("server", "clients_mean", "clients_min", "clients_max")
    before = [1.0] if curve["t_s"][0] > 0 else []  # a run begins with the whole model
    server, *clients = ([*before, *curve[name], curve[name][-1]] for name in names)
    end_s = max(report["simulated_s"], curve["t_s"][-1])  # a first stage may end later than the last window: none
    t_s = [*(0.0 for _ in before), *curve["t_s"], end_s]
    return HeldShares(t_s, server, (clients[0], clients[1], clients[2]) if clients else None)


def server_mask_alone(report: Mapping[str, Any]) -> bool:
    """Whether the clients of a run with `masks` have none of their own, but the server's."""
    curve = report["masks"]["curve"]
    return "own_models" not in report and curve["clients_min"] == curve["clients_max"] == curve["server"]

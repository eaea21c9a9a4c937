"""What the clock takes (network, window settings, costs) and returns (dispatches, arrivals, failures, windows)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from prfl_jax.clock.faults import REPEATED_UPLOAD
from prfl_jax.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class Network:
    """Speeds of the clients and of the server (Table II).

    Args:
      client_up: [M] MB/s (MB = 10^6 bytes) each client sends with.
      client_down: [M] MB/s each client receives with.
      server_up: MB/s the server sends with, to all clients together.
      server_down: MB/s the server receives with, from all clients together.
      client_sigma: deviation of the logarithm of the factor on each transfer's speed.
      server_sigma: the same for the server's factor, one per window and direction.
      contention: False: every stream may use the server's whole speed, nothing is shared.

    Raises:
      UserError: a speed that is not positive, a negative sigma, lists of different length.
    """

    client_up: Sequence[float]
    client_down: Sequence[float]
    server_up: float
    server_down: float
    client_sigma: float = 0.3
    server_sigma: float = 0.1
    contention: bool = True

    def __post_init__(self) -> None:
        if len(self.client_up) != len(self.client_down) or not len(self.client_up):
            raise UserError(
                f"clients.up_mb_s has {len(self.client_up)} and clients.down_mb_s {len(self.client_down)} values: "
                "both need one for each client"
            )
        speeds: dict[str, Sequence[float]] = {
            "clients.up_mb_s": self.client_up,
            "clients.down_mb_s": self.client_down,
            "server.up_mb_s": (self.server_up,),
            "server.down_mb_s": (self.server_down,),
        }
        for key, values in speeds.items():
            for value in values:
                if not (value > 0 and math.isfinite(value)):
                    raise UserError(f"{key}: {value} MB/s is not a positive finite number")
        for key, sigma in (("clients.sigma", self.client_sigma), ("server.sigma", self.server_sigma)):
            if not (sigma >= 0 and math.isfinite(sigma)):
                raise UserError(f"{key}: {sigma} is not a finite number of at least 0")

    @property
    def num_clients(self) -> int:
        """M."""
        return len(self.client_up)


@dataclasses.dataclass(frozen=True)
class WindowSettings:
    """The group `window` of a config, as its close rule reads it.

    Args:
      close: name of the close rule (`close_rules.py`), or of a plugin.
      dt_s: length of a `fixed` window, s.
      first_waits_for_all: the first window of `fixed` or `deadline` ends when every client has arrived once
        (Algorithm 1, line 2).
      k: arrivals that close a `k_arrivals` window.
      dispatch: `window_end` (arrived clients wait for the close) or `on_arrival` (they get the
        model of the last closed window at once).
      release_min_s: shortest `release` window, s.
      cohort: how many clients take part at a time, 0: all. Whenever clients would be dispatched, as many are drawn
        from those that are not in flight (uniformly, so that a client that has just arrived may be drawn again).
      deadline_share, deadline_factor: a `deadline` is the factor times the seconds in which this share of the clients
        in flight at the opening has arrived, rounded up to whole clients; rounds that have failed by then do not count.
    """

    close: str = "fixed"
    dt_s: float = 14.0
    first_waits_for_all: bool = True
    k: int = 1
    dispatch: str = "window_end"
    release_min_s: float = 0.5
    cohort: int = 0
    deadline_share: float = 0.85
    deadline_factor: float = 1.5


@dataclasses.dataclass(frozen=True)
class Costs:
    """What one dispatch of each client costs; the same for all dispatches until the next `Clock.set_costs`.

    Args:
      down_bytes: [M] integers, values of the client's sub-model: a prefix of the nested order of weights.
      mask_bytes: [M] integers, sent once to each client, with its first dispatch under these costs.
      up_bytes: [M] integers, what the client sends back.
      compute_s: [M] s of local training.
      group: [M] integers, equal for clients whose sub-models are the same (transport `distinct`).
      steps: [M] integers, local steps of the client's round, where clients have their own number; else 0, the default.
      values_up: [M] integers, values of its update that the client sends, where it sends a part; else 0, the default.

    Raises:
      ValueError: arrays of different length; a negative or non-finite value; an integer with a fraction.
    """

    down_bytes: np.ndarray
    mask_bytes: np.ndarray
    up_bytes: np.ndarray
    compute_s: np.ndarray
    group: np.ndarray
    steps: np.ndarray = None  # type: ignore[assignment]
    values_up: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for name in ("steps", "values_up"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.zeros(len(self.down_bytes), np.int64))
        for field in dataclasses.fields(self):
            values = np.asarray(getattr(self, field.name))
            if values.ndim != 1 or len(values) != len(self.down_bytes):
                raise ValueError(f"Costs.{field.name} has shape {values.shape}, not [M]")
            if not np.isfinite(values).all() or (field.name != "group" and (values < 0).any()):
                raise ValueError(f"Costs.{field.name} has a negative or non-finite value")
            broken = values[values % 1 != 0]
            if field.name != "compute_s" and len(broken):
                raise ValueError(f"Costs.{field.name} has {broken[0]:g}; allowed are whole numbers: round them")
            dtype = np.float64 if field.name == "compute_s" else np.int64
            object.__setattr__(self, field.name, values.astype(dtype, copy=False))

    def to_state(self) -> dict[str, list]:
        """All arrays, as JSON can hold them."""
        return {field.name: getattr(self, field.name).tolist() for field in dataclasses.fields(self)}

    @classmethod
    def from_state(cls, state: dict[str, list]) -> Costs:
        """The costs that `to_state` wrote."""
        return cls(**{name: np.asarray(values) for name, values in state.items()})


class Dispatch(NamedTuple):
    """The server gives client `client` a model at `time_s` (simulated s; `on_arrival`: not at a window's start).

    `index` counts the client's dispatches from 0; `version` is the window whose model it is (0: the
    initial model); `bytes_down` are those of its sub-model, and of its mask where that is sent along.
    """

    client: int
    index: int  # type: ignore[assignment]  # hides tuple.index
    version: int
    time_s: float
    on_arrival: bool
    bytes_down: int


class Arrival(NamedTuple):
    """A client's update of `bytes_up` has reached the server; `index` and `version` are its dispatch's.

    Times in simulated s: `dispatched_s`, then `downloaded_s`, `computed_s`, `arrived_s`: when each was done.
    """

    client: int
    index: int  # type: ignore[assignment]  # hides tuple.index
    version: int
    dispatched_s: float
    downloaded_s: float
    computed_s: float
    arrived_s: float
    bytes_up: int

    @property
    def round_s(self) -> float:
        """t_i of Eq. 3, T_n of FedMP's Eq. 5: download, computing, upload, without the wait for the window's end; s."""
        return self.arrived_s - self.dispatched_s

    @property
    def ended_s(self) -> float:
        """When its round ended, s."""
        return self.arrived_s


class Failure(NamedTuple):
    """A round of `client` that ended without an update, in the way `kind` (`faults.py`); `index` is its dispatch's.

    From `dispatched_s` to `ended_s` (simulated s) the client had sent `bytes_up` and received `bytes_down`, of mask and
    values; `bytes_missed` is what it had not received of its dispatch.
    """

    client: int
    index: int  # type: ignore[assignment]  # hides tuple.index
    kind: str
    dispatched_s: float
    ended_s: float
    bytes_up: int
    bytes_down: int = 0  # checkpoints before these two fields have failures without them
    bytes_missed: int = 0


class Repeat(NamedTuple):
    """The second copy of an update of `client`: ended at `ended_s` (simulated s), after `bytes_up` were sent of it.

    `index` is that of the dispatch it answers.
    """

    client: int
    index: int  # type: ignore[assignment]  # hides tuple.index
    ended_s: float
    bytes_up: int


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """One window (T_{n-1}, T_n], and everything that happened in it.

    Attributes:
      index: n, from 1.
      start_s, end_s: T_{n-1} and T_n.
      dispatches: those at its start in the order of client ids, then those on arrival, in order of time.
      arrivals: in order of time, ties by client id (Eq. 1); all that tie have one time.
      bytes_down: what the server sent in this window.
      bytes_client_down: what the clients received, each counted.
      bytes_up: what the server received.
      waiting_s: s between each arrival and this window's end, in their order; 0 where clients do not wait for it.
      failures: rounds that ended without an update, ordered as arrivals.
      repeats: second copies that ended, ordered likewise.
    """

    index: int
    start_s: float
    end_s: float
    dispatches: tuple[Dispatch, ...]
    arrivals: tuple[Arrival, ...]
    bytes_down: int
    bytes_client_down: int
    bytes_up: int
    waiting_s: tuple[float, ...]
    failures: tuple[Failure, ...] = ()
    repeats: tuple[Repeat, ...] = ()

    @property
    def faults(self) -> list[tuple[str, int]]:
        """(kind, client) of every failure and every repeated upload."""
        repeated = [(REPEATED_UPLOAD, repeat.client) for repeat in self.repeats]
        return [*((failure.kind, failure.client) for failure in self.failures), *repeated]

"""Faults: which dispatches fail, and how; when clients are available; how fast their links are.

What happens to a dispatch is drawn from (seed, client, number of the dispatch) alone, so methods that are compared meet
the same faults, and no generator's state is saved.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from prfl_jax.clock.draws import FAULT
from prfl_jax.clock.traces import Presence, Trace, read_availability, read_bandwidth

DROPOUT, CRASH, LOST_UPLOAD, REPEATED_UPLOAD = "dropout", "crash", "lost_upload", "repeated_upload"
LEFT, LATE = "left", "late"
FAILURES = (DROPOUT, CRASH, LOST_UPLOAD, LEFT, LATE)  # how a round ends without an update
KINDS = (*FAILURES, REPEATED_UPLOAD)  # all that is counted
FILES = ("availability", "bandwidth")  # keys of `config.faults` that name files


@dataclasses.dataclass(frozen=True)
class Faults:
    """The faults of a run. Each probability is per dispatch.

    Args:
      dropout: the client downloads the model and does nothing more; its round ends with its download.
      crash: it stops after a uniform share of its computing time.
      lost_upload: the whole upload is sent, and the update never counts.
      repeated_upload: the update counts, and then all of it is sent once more.
      presence: when clients are available; None: always.
      up, down: link speeds over time by client, instead of the network's.
    """

    dropout: float = 0.0
    crash: float = 0.0
    lost_upload: float = 0.0
    repeated_upload: float = 0.0
    presence: Presence | None = None
    up: Mapping[int, Trace] = dataclasses.field(default_factory=dict)
    down: Mapping[int, Trace] = dataclasses.field(default_factory=dict)

    @property
    def any(self) -> bool:
        """Whether anything can fail at all."""
        return self.drawn or self.presence is not None or bool(self.up)

    @property
    def drawn(self) -> bool:
        """Whether any fault is random."""
        return any(self.probabilities)

    @property
    def probabilities(self) -> tuple[float, ...]:
        """Of dropout, crash, lost_upload and repeated_upload."""
        return self.dropout, self.crash, self.lost_upload, self.repeated_upload

    def there(self, client: int, now_s: float) -> bool:
        """Whether a client is available at a simulated second."""
        return self.presence is None or self.presence.there(client, now_s)


class FaultDraws:
    """What happens to each dispatch.

    Each kind has a draw of its own, so that a change of one probability leaves the draws of the others as they are. Of
    several kinds that are drawn for a dispatch, the first of dropout, crash, lost_upload, repeated_upload happens.
    """

    def __init__(self, seed: int, faults: Faults) -> None:
        self._seed, self._faults = seed % 2**64, faults

    def of(self, client: int, index: int) -> tuple[str | None, float]:
        """The kind of fault (None: none) and the share of its computing time that the client computes."""
        if not self._faults.drawn:
            return None, 1.0
        key = np.random.SeedSequence((self._seed, FAULT, client, index))
        *draws, share = np.random.Generator(np.random.PCG64(key)).random(5).tolist()
        names = (DROPOUT, CRASH, LOST_UPLOAD, REPEATED_UPLOAD)
        struck = (name for name, u, p in zip(names, draws, self._faults.probabilities, strict=True) if u < p)
        kind = next(struck, None)
        return kind, {DROPOUT: 0.0, CRASH: share}.get(kind or "", 1.0)


def faults_from_config(config: Any) -> Faults:
    """`config.faults`, its files read.

    Raises:
      UserError: a file cannot be read, or holds what is not allowed.
    """
    own, clients = config.faults, config.clients.number
    intervals: Mapping[int, list[tuple[float, float]]] = {}
    if own.availability is not None:
        intervals = read_availability(os.path.expanduser(own.availability), clients)
    presence = None
    if intervals or own.join_s or own.leave_s:
        joins = _in_turn(own.join_s, clients, 0.0)
        leaves = _in_turn(own.leave_s, clients, math.inf)
        presence = Presence(
            [
                _within(intervals.get(client, [(0.0, math.inf)]), joins[client], leaves[client])
                for client in range(clients)
            ]
        )
    up, down = ({}, {}) if own.bandwidth is None else read_bandwidth(os.path.expanduser(own.bandwidth), clients)
    return Faults(own.dropout, own.crash, own.lost_upload, own.repeated_upload, presence, up, down)


def fault_files(config: Any) -> list[str]:
    """Paths of the files that a config's faults come from."""
    return [os.path.expanduser(config.faults[key]) for key in FILES if config.faults[key] is not None]


def _in_turn(values: tuple[float, ...], clients: int, otherwise: float) -> list[float]:
    return [values[client % len(values)] if values else otherwise for client in range(clients)]


def _within(intervals: list[tuple[float, float]], join_s: float, leave_s: float) -> list[tuple[float, float]]:
    cut = [(max(begin, join_s), min(end, leave_s)) for begin, end in intervals]
    return [(begin, end) for begin, end in cut if begin < end]

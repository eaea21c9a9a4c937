"""For `VectorizedClock`: whether the server's rates suffice for a window's streams, and the bytes that move in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from prfl_jax.clock.ties import until
from prfl_jax.clock.vectorized_state import Columns, SharedStream

_MARGIN = 1 - 1e-6  # of the server's rate, so that rounding decides nothing


@dataclasses.dataclass(frozen=True)
class ServerLoad:
    """Whether streams together stay below the server's rates.

    Args:
      contention: False: streams do not share a rate.
      server: rates, sending and receiving, bytes/s.
      own_streams: the values of each dispatch are a stream of its own.
    """

    contention: bool
    server: tuple[float, float]
    own_streams: bool

    def fits(self, start: float, end: float, state: Columns, shared: Sequence[SharedStream]) -> bool:
        """Whether all that moves in the window (simulated s) is below the server's rates at any time."""
        begun, rate = state["dispatched"], state["down_rate"]
        # a shared stream has its highest rate to its end, as if it slowed down for nobody
        sending = [np.array([[stream.begin, stream.times[-1], stream.rates[0]] for stream in shared]).reshape(-1, 3)]
        sending.append(np.stack([begun, state["ready"], rate], axis=1)[state["mask"] > 0])
        if self.own_streams:
            sending.append(np.stack([begun, state["sent"], rate], axis=1)[state["down"] > 0])
        receiving = np.stack([state["computed"], state["arrived"], state["up_rate"]], axis=1)[state["up"] > 0]
        for moving, there in zip((np.concatenate(sending), receiving), self.server, strict=True):
            moving = moving[(moving[:, 0] <= until(end)) & (moving[:, 1] > start)]
            if self._wanted(moving) > _MARGIN * there:
                return False
        return True

    def _wanted(self, moving: np.ndarray) -> float:
        """The most that streams `[n, (begin, end, rate)]` want together at any time; without contention, one alone."""
        if not len(moving):
            return 0.0
        if not self.contention:
            return float(moving[:, 2].max())
        times = np.concatenate([moving[:, 1], moving[:, 0]])  # where one ends as another begins, it ends first
        change = np.concatenate([-moving[:, 2], moving[:, 2]])
        return float(np.cumsum(change[np.argsort(times, kind="stable")]).max())


def moved_bytes(
    end: float, flying: np.ndarray, state: Columns, shared: Sequence[SharedStream], own_streams: bool, clients: int
) -> tuple[tuple[int, int, int], Columns]:
    """Whole bytes since the last window: sent by the server, received by clients, received by the server.

    Also counts them in the shared streams.

    Args:
      end: of the window, simulated s.
      flying: `[n]` clients in flight before its arrivals are taken out.
      state: `[n]` columns of their flights.
      own_streams: the values of each dispatch are a stream of its own.
      clients: M.

    Returns:
      The bytes, and the columns `*_counted` as they are now.
    """
    totals: Columns = {}

    def fresh(name: str, total: np.ndarray) -> int:
        total = totals[name] = np.maximum(total, state[name])
        return int((total - state[name]).sum())

    start, down, mask, rate = state["dispatched"], state["down"], state["mask"], state["down_rate"]
    since, last = end - start, until(end)
    masked = np.where(state["ready"] <= last, mask, _floor(np.minimum(rate * since, mask)))
    sent = fresh("mask_counted", masked)
    if own_streams:
        available = np.where(state["sent"] <= last, down.astype(float), np.minimum(rate * since, down))
        sent += fresh("sent_counted", np.where(state["sent"] <= last, down, _floor(available)))
    else:
        available = down.astype(float)
        place = np.full(clients, -1)
        place[flying] = np.arange(len(flying))
        for stream in shared:
            total = int(stream.sent_at(end))
            sent, stream.counted = sent + total - stream.counted, total
            mine = place[np.array(stream.clients)]
            mine = mine[mine >= 0]
            mine = mine[(state["version"][mine] == stream.version) & (state["sent"][mine] > last)]
            available[mine] = np.minimum(down[mine], stream.sent_at(end))
    ready = np.maximum(state["ready"], start)
    values = np.maximum(0, _floor(np.minimum((end - ready) * rate, available)))
    values = np.where(state["ready"] >= end, 0, values)
    values = np.where(state["end"] <= last, down, values)
    own_mask = np.where(start >= end, 0, np.maximum(0, _floor(np.minimum(since * rate, mask))))
    own_mask = np.where(state["ready"] <= last, mask, own_mask)
    received = fresh("got_counted", values + own_mask)
    uploaded = _floor(np.minimum(state["up_rate"] * np.maximum(end - state["computed"], 0), state["up"]))
    up = fresh("up_counted", np.where(state["arrived"] <= last, state["up"], uploaded))
    return (sent, received, up), totals


def _floor(values: np.ndarray) -> np.ndarray:
    return np.floor(values).astype(np.int64)

"""The plan of a chunk: which clients are dispatched, train and arrive in each window, as small arrays for the device.

A client occupies a slot of the stacked arrays from its dispatch to its arrival, and in a buffer for the whole run.
Where every client has a slot, slots are the clients' numbers; in cohorts a free slot goes to the next client.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from prfl_jax.aggregate.context import AggregationWeights

MAX_ROWS = 64  # rows of a chunk's plan; the executable runs as many of them as its argument `rows` says


class Plan(NamedTuple):
    """L rows for the device. A row dispatches, takes arrivals, and may close a window.

    A window is one row, unless a client is dispatched on arrival in the middle of it:
    what is dispatched before the close gets the old model, so it opens another row.

    Attributes:
      dispatch: `[L, S]` int32 slots, the first `dispatch_count` count; the rest is S, the number of slots.
      dispatch_count: `[L]` int32.
      percent: `[L, S]` int32 density (percent) that each slot is dispatched with.
      train: `[L, S]` int32 slots to train before the arrivals are taken, padded with S; none where
        clients are trained as they arrive (`engine.train`).
      train_count: `[L]` int32.
      arrive: `[L, S]` int32 slots in order of arrival, padded with S.
      arrive_count: `[L]` int32.
      client: `[L, S]` int32, the client whose round each slot that trains or arrives holds.
      count: `[L, S]` int32, how many rounds that client had begun before, which its draws of data go by.
      lr: `[L, S]` float32 learning rate of that round.
      density_pct: `[L, S]` int32 density (percent) it runs at.
      steps: `[L, S]` int32, how many local steps it does (`LocalWork.own_steps`; else not read).
      values_up: `[L, S]` int32, how many values of its update it sends (`transport.uploads.Upload`; else not read).
      prunes: `[L, S]` bool, whether the client chooses its own masks anew in it (`LocalWork.own_masks`; else not read).
      coefficient: `[L, S]` float32, with which an arriving slot's update enters the running sum.
      close: `[L]` bool: aggregate at the end of this row.
      weights: `[L, S]` float32 weights of the slots at the close.
      server_lr: `[L]` float32, how far W moves to their mean (Eq. 11).
      keep: `[L]` float32, with which W does at the close.
      optimizer_lr: `[L]` float32, eta of the server's optimiser at the close.
    """

    dispatch: Any
    dispatch_count: Any
    percent: Any
    train: Any
    train_count: Any
    arrive: Any
    arrive_count: Any
    client: Any
    count: Any
    lr: Any
    density_pct: Any
    steps: Any
    values_up: Any
    prunes: Any
    coefficient: Any
    close: Any
    weights: Any
    server_lr: Any
    keep: Any
    optimizer_lr: Any


class LocalRound(NamedTuple):
    """A client's local round in a slot: numbers on the host, arrays in a compiled chunk (stacked for several slots).

    Attributes:
      slot: where the client's models are; on the device the number of slots for padding.
      client: its number.
      rounds: how many rounds the client had begun before; its draws of data go by it.
      lr: learning rate.
      coefficient: c_k of its update in a running sum.
      density_pct: density (percent) it runs at.
      steps: how many local steps it does, where clients have their own number (`LocalWork.own_steps`).
      values_up: how many values of its update it sends, where clients send a part (`Upload.compresses`).
      prunes: whether the client chooses its own masks anew at its end (`LocalWork.own_masks`).
    """

    slot: Any
    client: Any
    rounds: Any
    lr: Any
    coefficient: Any = 0.0
    density_pct: Any = 100
    steps: Any = 1
    values_up: Any = 0
    prunes: Any = False


def empty_row(slots: int) -> Plan:
    """A row that does nothing."""
    m = slots
    return Plan(
        dispatch=np.full(m, m, np.int32),
        dispatch_count=np.int32(0),
        percent=np.full(m, 100, np.int32),
        train=np.full(m, m, np.int32),
        train_count=np.int32(0),
        arrive=np.full(m, m, np.int32),
        arrive_count=np.int32(0),
        client=np.zeros(m, np.int32),
        count=np.zeros(m, np.int32),
        lr=np.zeros(m, np.float32),
        density_pct=np.full(m, 100, np.int32),
        steps=np.ones(m, np.int32),
        values_up=np.zeros(m, np.int32),
        prunes=np.zeros(m, bool),
        coefficient=np.zeros(m, np.float32),
        close=np.bool_(False),
        weights=np.zeros(m, np.float32),
        server_lr=np.float32(1.0),
        keep=np.float32(1.0),
        optimizer_lr=np.float32(1.0),
    )


def make_row(
    slots: int,
    sent: Sequence[tuple[int, int]],
    arrivals: Sequence[LocalRound],
    closing: AggregationWeights | None = None,
    train: Sequence[LocalRound] = (),
) -> Plan:
    """One row.

    Args:
      slots: S.
      sent: (slot, density in percent) of each dispatch.
      closing: with weights by slot; None: no close.
      train: rounds to train before the arrivals, which may be among them.
    """
    row = empty_row(slots)
    of_round = (
        row.client, row.count, row.lr, row.coefficient, row.density_pct, row.steps, row.values_up, row.prunes,
    )  # fmt: skip
    for k, (slot, percent) in enumerate(sent):
        row.dispatch[k], row.percent[slot] = slot, percent
    for listed, items in ((row.train, train), (row.arrive, arrivals)):
        for k, (slot, *item) in enumerate(items):
            listed[k] = slot
            for column, value in zip(of_round, item, strict=True):
                column[slot] = value
    if closing is not None:
        row.weights[:] = closing.slots
        scalars = {name: np.float32(getattr(closing, name)) for name in ("server_lr", "keep", "optimizer_lr")}
        row = row._replace(**scalars)
    return row._replace(
        dispatch_count=np.int32(len(sent)),
        train_count=np.int32(len(train)),
        arrive_count=np.int32(len(arrivals)),
        close=np.bool_(closing is not None),
    )


def stack_rows(rows: Sequence[Plan], length: int) -> Plan:
    """Rows as arrays `[length, ...]`, padded with rows that do nothing (they are not even run)."""
    stacked = []
    for nothing, *column in zip(empty_row(len(rows[0].dispatch)), *rows, strict=True):
        array = np.empty((length, *np.shape(nothing)), nothing.dtype)
        array[: len(rows)], array[len(rows) :] = column, nothing
        stacked.append(array)
    return Plan(*stacked)

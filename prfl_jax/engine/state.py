"""What is on the device between two chunks: `State`, what a chunk returns, and how both are spread over devices."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from jax.sharding import PartitionSpec

from prfl_jax.engine.placement import ALL, AXIS, OWN
from prfl_jax.engine.plan import Plan
from prfl_jax.submodel.importance import Squares


class Trained(NamedTuple):
    """Updates that wait for their arrival.

    Attributes:
      models: `[S, ...]`.
      losses: `[S]` mean training losses.
      memories: `[S, ...]` what their clients will keep (`ClientMemory`); () for nothing.
    """

    models: Any
    losses: jax.Array
    memories: Any = ()


class State(NamedTuple):
    """Everything on the device that a window changes; a pytree, donated to each chunk.

    Attributes:
      params: the server model W.
      sent: `[S, ...]` the model each client was last sent (w_sent), 0 where masked; where the aggregation restores what
        clients do not hold, the whole model, which is masked when it is read.
      sent_bits: its masks, packed `[S, ceil(n/8)]` uint8 a prunable leaf.
      buffer: `[S, ...]` the latest client update in each slot (w_{i,n'}); () where the aggregation keeps none.
      buffer_bits: its masks.
      total: the aggregation's running sum of this window's arrivals; () where it keeps a buffer.
      trained: the updates of slots in flight, if they are trained ahead of their arrivals; else ().
      importance: accumulators for the next pruning.
      levels: int8 a prunable leaf: the current generation of nested masks.
      fixed: the model's variables that are not trained, the same for all clients; {} where there are none.
      optimizer: the state of the server's optimiser; () without one.
      clients: `[N, ...]` what all clients keep between their rounds (`ClientMemory`); () for nothing. A client's place
        is its slot, in cohorts its number.
      beside: what the server keeps beside the model (`Beside`); () for nothing.
      beside_sent: `[S, ...]` its value as it was sent with each model in flight.
    """

    params: Any
    sent: Any
    sent_bits: tuple[jax.Array, ...]
    buffer: Any
    buffer_bits: tuple[jax.Array, ...]
    total: Any
    trained: Any
    importance: Squares
    levels: tuple[jax.Array, ...]
    fixed: Any
    optimizer: Any = ()
    clients: Any = ()
    beside: Any = ()
    beside_sent: Any = ()


class ChunkOutput(NamedTuple):
    """What a chunk returns of its L rows.

    Attributes:
      losses: `[L, m]` mean training loss of each arrival, in their order.
      verdicts: `[L, m]` int8, what the update filter did to each arrival; () without a filter.
      kept: `[L]` int32, weights that kept their old value at the close for lack of holders; () unless the aggregation
        counts them.
    """

    losses: Any
    verdicts: Any = ()
    kept: Any = ()


# Over several devices: what is stacked over clients is on its client's device (`[D m, ...]`), the rest on each.
STACKED = ("sent", "sent_bits", "buffer", "buffer_bits", "trained", "clients", "beside_sent")
STATE_SPEC = State(**{name: OWN if name in STACKED else ALL for name in State._fields})  # type: ignore[arg-type]
_SCALARS = ("close", "server_lr", "keep", "optimizer_lr")  # of a row
_EACH = PartitionSpec(None, AXIS)
# how the arrays of a plan lie on several devices
PLAN_SPEC = Plan(**{name: ALL if name in _SCALARS else _EACH for name in Plan._fields})
OUTPUT_SPEC = ChunkOutput(_EACH, _EACH, ALL)

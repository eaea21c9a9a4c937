"""Aggregation kernels: the device functions `init`, `add` and `close` that make the next server model from arrivals.

The engine calls them inside its compiled chunk, on each device for the slots that the device holds. JAX is imported
when a function is traced, so that a config can be checked without it.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import jax

    from prfl_jax.submodel.layout import Layout


class Accumulator(NamedTuple):
    """What a kernel keeps of arrivals; a part that it does not need is ().

    Attributes:
      buffer: `[S, ...]` the latest update of each slot's client, with the device that holds the slot.
      buffer_bits: its masks, packed `[S, ceil(n/8)]` uint8 a prunable leaf.
      total: sums over arrivals, a pytree that is the same on all devices. `add` may only add to it: where there are
        several devices, each begins at 0 and the engine adds their sums up.
    """

    buffer: Any = ()
    buffer_bits: Any = ()
    total: Any = ()


class Arrivals(NamedTuple):
    """One arrival, or a group of G arrivals stacked `[G, ...]`.

    Attributes:
      slots: int32, each client's slot; the number of slots S for padding.
      here: bool, False for padding.
      params: the updated models w_i as the server counts them: 0 where not held, or the server's old value there
        (`Aggregation.restores`).
      bits: packed masks of the weights that count.
      sent: the models that were sent, w_sent; whole ones where `Aggregation.restores`.
      coefficient: c_k of each arrival (`AggregationWeights.arrivals`).
    """

    slots: jax.Array
    here: jax.Array
    params: Any
    bits: tuple[jax.Array, ...]
    sent: Any
    coefficient: jax.Array


class CloseInputs(NamedTuple):
    """What `close` is given.

    Attributes:
      layout: which leaves can be pruned.
      params: W^{n-1}, a pytree.
      held: what the kernel has kept.
      weights: float32 `[S]` weights of the slots, 0 for slots that do not count.
      server_lr: eta_g, float32 (Eq. 11).
      keep: float32, the factor of the old W, for running sums.
      byzantine: f, how many clients may be malicious.
      across: sums a pytree over the devices.
      gather: stacks what is split over the devices, `[S, ...]` of all of them.
    """

    layout: Layout
    params: Any
    held: Accumulator
    weights: jax.Array
    server_lr: jax.Array
    keep: jax.Array
    byzantine: int
    across: Callable[[Any], Any]
    gather: Callable[[Any], Any]


class ServerStep(NamedTuple):
    """What `close` returns.

    Attributes:
      params: W^n.
      total: the next `Accumulator.total`.
      kept: int32, how many weights kept their old value for lack of holders; () unless the kernel counts them.
      held: booleans that broadcast to the leaves of W, a pytree like it: weights that this close decides about. () for
        those that a client that counts holds (`holders.TellsHeld` finds them out).
    """

    params: Any
    total: Any = ()
    kept: Any = ()
    held: Any = ()


class AggregationKernel(abc.ABC):
    """Three pure device functions, and what the host has to know of them.

    Attributes:
      buffered: it keeps every slot's latest update, so each client's model can be evaluated between its arrivals.
      at_once: `close` gathers the models of all slots, in float32, on each device.
      plain_mean: with `server_lr` 1 its result is FedAvg(B), the plain mean of the buffer.
      counts_kept: `close` returns `ServerStep.kept`.
      absent_as_zero: a weight that a client does not hold counts, as 0 or as `Aggregation.restores` has it, so that
        each close decides about all weights.
    """

    buffered = True
    at_once = False
    plain_mean = False
    counts_kept = False
    absent_as_zero = False

    def init(self, params: Any, stack: Any, bits: tuple[jax.Array, ...]) -> Accumulator:
        """What is kept before the first arrival.

        Args:
          params: W_0.
          stack: zeros `[S, ...]` like the models in flight, in the type that these are stored in.
          bits: zeros, packed masks `[S, ceil(n/8)]` uint8 a prunable leaf.
        """
        import jax
        import jax.numpy as jnp

        return Accumulator(jax.tree.map(jnp.copy, stack), jax.tree.map(jnp.copy, bits))

    def add(self, held: Accumulator, arrivals: Arrivals) -> Accumulator:
        """Enters arrivals; padding changes nothing. As given here: into their slots of the buffer."""
        from prfl_jax.system.host_offload import put_all

        return held._replace(
            buffer=put_all(held.buffer, arrivals.slots, arrivals.params),
            buffer_bits=put_all(held.buffer_bits, arrivals.slots, arrivals.bits),
        )

    @abc.abstractmethod
    def close(self, inputs: CloseInputs) -> ServerStep:
        """The next server model."""


class RunningSum(AggregationKernel):
    """W <- keep W + sum_k c_k x_k over the window's arrivals, each added as it comes; nothing is kept of a client.

    Args:
      updates: x_k is what the client changed, w_k - w_sent, instead of its model w_k.
    """

    buffered = False

    def __init__(self, updates: bool = False) -> None:
        self._updates = updates
        self.absent_as_zero = not updates

    def init(self, params: Any, stack: Any, bits: tuple[jax.Array, ...]) -> Accumulator:
        """A sum of 0."""
        import jax
        import jax.numpy as jnp

        return Accumulator(total=jax.tree.map(jnp.zeros_like, params))

    def add(self, held: Accumulator, arrivals: Arrivals) -> Accumulator:
        """Adds c_k x_k of each arrival."""
        from prfl_jax.aggregate import running_sum

        sent = arrivals.sent if self._updates else None
        total = running_sum.add(held.total, arrivals.params, arrivals.here, arrivals.coefficient, sent)
        return held._replace(total=total)

    def close(self, inputs: CloseInputs) -> ServerStep:
        """keep W plus the sum, which begins again at 0."""
        from prfl_jax.aggregate import running_sum

        return ServerStep(*running_sum.close(inputs.params, inputs.held.total, inputs.keep))


class MaskedMean(AggregationKernel):
    """MaskFedAvg: the mean of each weight over the buffer's slots that hold it (Algorithm 2)."""

    def close(self, inputs: CloseInputs) -> ServerStep:
        """W_mask^n (Eq. 8 to 11)."""
        from prfl_jax.aggregate.maskfedavg import maskfedavg

        layout, params, held, weights, server_lr, *_ = inputs
        return ServerStep(maskfedavg(layout, params, held.buffer, held.buffer_bits, weights, server_lr, inputs.across))


class PlainMean(AggregationKernel):
    """FedAvg(B): the mean over the buffer, pruned weights counting as 0 (Algorithm 1 line 15)."""

    plain_mean = True
    absent_as_zero = True

    def close(self, inputs: CloseInputs) -> ServerStep:
        """The mean, mixed into W as in Eq. 11."""
        from prfl_jax.aggregate.maskfedavg import fedavg

        return ServerStep(fedavg(inputs.params, inputs.held.buffer, inputs.weights, inputs.server_lr, inputs.across))


class AllModels(AggregationKernel):
    """A function of the models of all slots at once.

    Args:
      function: from `StackedUpdates` to the next server model, or, with `counts_kept`, to `robust.Robust`.
      counts_kept: see `AggregationKernel`.
    """

    at_once = True

    def __init__(self, function: Callable[[Any], Any], counts_kept: bool = False) -> None:
        self.function, self.counts_kept = function, counts_kept

    def close(self, inputs: CloseInputs) -> ServerStep:
        """What the function makes of them."""
        import jax

        from prfl_jax.aggregate.stacked import StackedUpdates

        layout, params, held, weights, server_lr, *_ = inputs
        models, bits, weights = inputs.gather((held.buffer, held.buffer_bits, weights))
        models = jax.tree.map(lambda stack, w: stack.astype(w.dtype), models, params)
        found = self.function(StackedUpdates(layout, params, models, bits, weights, server_lr, inputs.byzantine))
        return ServerStep(found.params, (), found.kept, found.held) if self.counts_kept else ServerStep(found)


def robust_rule(name: str) -> Callable[[Any], Any]:
    """The function of that name in `robust.py`, which imports JAX: it is imported when the function is called."""

    def rule(stacked: Any) -> Any:
        from prfl_jax.aggregate import robust

        return getattr(robust, name)(stacked)

    return rule

"""`TellsHeld`: an aggregation kernel that also says about which weights its next model decides.

A server optimiser needs it: a weight that no client holds gets neither an update nor a change of its moments. JAX is
imported when a function is traced.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from prfl_jax.aggregate.kernels import Accumulator, AggregationKernel, Arrivals, CloseInputs, ServerStep

if TYPE_CHECKING:
    import jax


class Counted(NamedTuple):
    """`Accumulator.total` of a kernel without a buffer, with the holders of this window beside it.

    Attributes:
      total: the kernel's own.
      arrivals: int32, how many arrivals count.
      holders: int32 `[n]` a prunable leaf, how many of them hold each weight; () where a weight that a client does not
        hold counts as 0.
    """

    total: Any
    arrivals: Any
    holders: tuple[Any, ...]


class TellsHeld(AggregationKernel):
    """Another kernel, whose `close` returns `ServerStep.held` too.

    With a buffer the slots of a weight above 0 count, else the window's arrivals with a coefficient other than 0. A
    `held` that the kernel itself returns is kept.

    Args:
      kernel: the other one.
    """

    def __init__(self, kernel: AggregationKernel) -> None:
        self._kernel = kernel
        self.buffered, self.at_once = kernel.buffered, kernel.at_once
        self.plain_mean, self.counts_kept = kernel.plain_mean, kernel.counts_kept

    def init(self, params: Any, stack: Any, bits: tuple[jax.Array, ...]) -> Accumulator:
        """What the kernel keeps, and zeros."""
        import jax.numpy as jnp

        held = self._kernel.init(params, stack, bits)
        if self.buffered:
            return held
        sizes = () if self._kernel.absent_as_zero else tuple(8 * packed.shape[-1] for packed in bits)
        zeros = tuple(jnp.zeros(size, jnp.int32) for size in sizes)
        return held._replace(total=Counted(held.total, jnp.int32(0), zeros))

    def add(self, held: Accumulator, arrivals: Arrivals) -> Accumulator:
        """Enters arrivals, and counts who holds what."""
        if self.buffered:
            return self._kernel.add(held, arrivals)
        import jax
        import jax.numpy as jnp

        from prfl_jax.submodel.masks import unpack

        counted: Counted = held.total
        held = self._kernel.add(held._replace(total=counted.total), arrivals)
        counts = arrivals.here & (arrivals.coefficient != 0)
        holders = []
        for number, packed in zip(counted.holders, arrivals.bits, strict=False):
            group = packed.reshape(-1, packed.shape[-1])  # one arrival is a group of one
            masks = jax.vmap(lambda own, size=number.size: unpack(own, size))(group)
            masks &= jnp.atleast_1d(counts)[:, None]
            holders.append(number + jnp.sum(masks, axis=0, dtype=jnp.int32))
        number = counted.arrivals + jnp.sum(counts, dtype=jnp.int32)
        return held._replace(total=Counted(held.total, number, tuple(holders)))

    def close(self, inputs: CloseInputs) -> ServerStep:
        """The kernel's step, with what is held."""
        import jax
        import jax.numpy as jnp

        if self.buffered:
            step = self._kernel.close(inputs)
            return step if step.held != () else step._replace(held=self._in_slots(inputs))
        counted: Counted = inputs.held.total
        step = self._kernel.close(inputs._replace(held=inputs.held._replace(total=counted.total)))
        if step.held == ():
            step = step._replace(held=_tree(inputs, counted.arrivals, counted.holders))
        arrivals, holders = jax.tree.map(jnp.zeros_like, (counted.arrivals, counted.holders))
        return step._replace(total=Counted(step.total, arrivals, holders))

    def _in_slots(self, inputs: CloseInputs) -> Any:
        """What the slots that count hold, of all devices."""
        import jax.numpy as jnp

        from prfl_jax.aggregate.maskfedavg import sum_clients
        from prfl_jax.submodel.masks import unpack

        weights = inputs.weights
        holders: list[Any] = []
        for packed in () if self._kernel.absent_as_zero else inputs.held.buffer_bits:
            size = 8 * packed.shape[-1]

            def term(c: Any, packed: jax.Array = packed, size: int = size) -> jax.Array:
                return jnp.where(unpack(packed[c], size), weights[c], 0.0)

            holders.append(sum_clients(weights.shape[0], term, jnp.zeros(size, jnp.float32)))
        total, holders = inputs.across((jnp.sum(weights), holders))
        return _tree(inputs, total, holders)


def _tree(inputs: CloseInputs, anybody: Any, holders: Any) -> Any:
    """Booleans that broadcast to the leaves of W: whether anybody holds the weight.

    Args:
      anybody: above 0 if any client counts; that client holds what is never pruned.
      holders: `[n]` and more a prunable leaf, above 0 where a client that counts holds the weight; () as in `Counted`.
    """
    import jax

    layout = inputs.layout
    flags = [anybody > 0] * len(layout.shapes)
    for i, number in zip(layout.prunable, holders, strict=False):
        flags[i] = (number[: math.prod(layout.shapes[i])] > 0).reshape(layout.shapes[i])
    return jax.tree.unflatten(layout.treedef, flags)

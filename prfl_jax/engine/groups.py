"""Runs a function over the slots that a plan lists: one slot after another (`map`), or a group at once (`vmap`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from prfl_jax.system import accelerator

AXIS = "group"  # the clients of a group that are trained at once
MOST = 8  # clients of a group: each takes several models' memory beside its own, and a larger group is no faster
TILE = 8  # rows that a TPU computes at once


def group_size(asked: int, slots: int, waiting: int) -> int:
    """How many clients `vmap` trains at once.

    Groups of equal size that `waiting` clients fill; on a TPU its tile.

    Args:
      asked: `engine.group`; 0: chosen here.
      slots: of a device; no group is larger.
      waiting: how many clients are to be trained at a time, at a guess.
    """
    if asked:
        return min(asked, slots)
    groups = -(-waiting // MOST)
    size = TILE if accelerator.backend() == "tpu" else -(-waiting // groups)
    return min(size, slots)


@dataclasses.dataclass(frozen=True)
class SlotGroups:
    """How the listed slots of one device are taken.

    Args:
      slots: m, the slots of the device; m itself in a list is padding.
      size: slots of a group; 0: one after another, without the axis of a group.
    """

    slots: int
    size: int

    @property
    def step(self) -> int:
        """Slots taken at a time."""
        return max(1, self.size)

    def each(self, listed: jax.Array, count: jax.Array, take: Callable[..., Any], start: Any) -> Any:
        """Folds `take(k, slots, carry)` over the slots from the k-th of a list `[m]` on, until `count` are taken.

        The last group is filled up with m, which is no slot.
        """
        listed = jnp.pad(listed, (0, -len(listed) % self.step), constant_values=self.slots)

        def group(g: jax.Array, carry: Any) -> Any:
            k = g * self.step
            return take(k, lax.dynamic_slice_in_dim(listed, k, self.size) if self.size else listed[k], carry)

        return lax.fori_loop(0, -(-count.reshape(()) // self.step), group, start)

    def over(self, function: Callable[..., Any], own: int) -> Callable[..., Any]:
        """A function of one client as it is, or for a group at once; its first `own` arguments are then stacked."""

        def stacked(*args: Any) -> Any:
            axes = [0 if k < own else None for k in range(len(args))]
            return jax.vmap(function, in_axes=axes, axis_name=AXIS)(*args)

        return stacked if self.size else function

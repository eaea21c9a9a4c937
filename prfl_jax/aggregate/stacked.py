"""`StackedUpdates`: the server's model and those of all slots, for aggregation kernels that look at all models."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.masks import unpack
from prfl_jax.system.notices import deprecated_once


@dataclasses.dataclass(frozen=True)
class StackedUpdates:
    """The server's model and those in the S slots, at the close of a window; only inside a compiled function.

    Attributes:
      layout: which leaves can be pruned.
      params: W^{n-1}, a pytree.
      models: the same pytree stacked, `[S, ...]`: the latest update in each slot, 0 where its client does not hold it.
      bits: which prunable weights those hold, packed `[S, ceil(n/8)]` a prunable leaf.
      weights: float32 `[S]` as the weight rule gave them; 0 for slots that do not count.
      server_lr: eta_g, how far W moves (Eq. 11).
      byzantine: f, how many clients may be malicious (`aggregation.byzantine`).
    """

    layout: Layout
    params: Any
    models: Any
    bits: tuple[jax.Array, ...]
    weights: jax.Array
    server_lr: jax.Array
    byzantine: int

    def masks(self) -> list[jax.Array]:
        """Which slot holds which weight: bool `[S, n]` for each leaf of `params`, in order.

        Every slot holds what is never pruned.
        """
        packed = dict(zip(self.layout.prunable, self.bits, strict=True))
        slots = self.weights.shape[0]
        out = []
        for i, old in enumerate(jax.tree.leaves(self.params)):
            if i in packed:
                out.append(jax.vmap(lambda b, n=old.size: unpack(b, n))(packed[i]))
            else:
                out.append(jnp.ones((slots, old.size), bool))
        return out


def __getattr__(name: str) -> Any:
    if name != "Held":  # its name in version 0.1, which users' files import
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    deprecated_once("prfl_jax.aggregate.stacked.Held is now StackedUpdates")
    return StackedUpdates

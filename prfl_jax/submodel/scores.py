"""The choices of `submodel.importance`: how a weight's importance is scored, and what is gathered for it (NumPy only).

`server_sq_grad` (default) costs no bytes: the server takes squared gradients from the updates that arrive.
`client_sq_grad` has clients upload the squared gradients of their steps, and is charged for it. `weight` gathers
nothing. `product` is |w| times what `server_sq_grad` gathers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from prfl_jax.registry import Registry

Arrays = tuple[Any, ...]  # NumPy's or JAX's, one a prunable leaf


@dataclasses.dataclass(frozen=True)
class Importance:
    """One choice.

    Attributes:
      scores: (weights, squares) -> scores; see `Submodel.scores`.
      from_updates: squared gradients are ((w_sent - w_received) / lr)^2 of each update.
      from_clients: squared gradients are those of the client's own steps, which it uploads.
      of_sums: these are the squares of the sums over a round's steps, of all weights, held or not, and one number for
        all values that are never pruned.
    """

    scores: Callable[[Arrays, Arrays], Arrays]
    from_updates: bool = False
    from_clients: bool = False
    of_sums: bool = False

    @property
    def gathers(self) -> bool:
        """Whether squared gradients are accumulated."""
        return self.from_updates or self.from_clients


def squares_alone(weights: Arrays, squares: Arrays) -> Arrays:
    """The mean squared gradients."""
    return squares


def weight_alone(weights: Arrays, squares: Arrays) -> Arrays:
    """|w|."""
    return tuple(abs(weight) for weight in weights)


def weight_times_squares(weights: Arrays, squares: Arrays) -> Arrays:
    """|w| times the mean squared gradient."""
    return tuple(abs(weight) * square for weight, square in zip(weights, squares, strict=True))


# the choices of `submodel.importance`
IMPORTANCES: Registry[Importance] = Registry(
    "submodel.importance",
    {
        "server_sq_grad": Importance(squares_alone, from_updates=True),
        "client_sq_grad": Importance(squares_alone, from_clients=True),
        "weight": Importance(weight_alone),
        "product": Importance(weight_times_squares, from_updates=True),
    },
)

# what PruneFL's server gathers, which no pruning score is made of
GRADIENT_SUMS = Importance(squares_alone, from_clients=True, of_sums=True)

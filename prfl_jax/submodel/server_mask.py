"""`ServerMask`: the one mask that the server sends to all clients, where it changes with what is learned (NumPy only).

Such a mask may lose any weight and get any back, so nothing about its size is known before it is computed. In
`State.levels` a weight of it has the level `HELD`, every other one `NOT_HELD`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

HELD, NOT_HELD = 1, 127  # levels (percent): below every density, and above all

Arrays = tuple[Any, ...]  # NumPy's or JAX's, one a prunable leaf


@dataclasses.dataclass(frozen=True)
class PruningSettings:
    """The group `pruning` of a config, and N.

    Attributes:
      clients: N.
      interval: windows between two prunings.
      share: of a layer's kept weights that a client's pruning takes before it recovers some.
      votes, initial_votes: share of the clients that hold a weight of the server's mask, in the adaptive and in the
        initial stage.
      votes_above: whether more clients than that have to hold it.
      initial_density: the initial stage ends when the server's mask is below it.
      initial_rounds: its rounds at most; None: the rule's own number.
      initial_steps: local steps of its rounds.
      recovered: `zero` or `stale`: the value with which a client begins to train a weight that it takes back.
      gradients: `interval` or `round`: since when squared gradients are added up.
      density: share of the weights that can be pruned that a rule with a target keeps in the end.
      times: prunings in which iterative pruning reaches it.
      rounds: in whose first half they are.
    """

    clients: int
    interval: int = 50
    share: float = 0.3
    votes: float = 0.6
    initial_votes: float = 0.8
    votes_above: bool = False
    initial_density: float = 0.2
    initial_rounds: int | None = None
    initial_steps: int = 50
    recovered: str = "zero"
    gradients: str = "interval"
    density: float = 0.1
    times: int = 20
    rounds: int = 1000

    @property
    def least(self) -> int:
        """Votes that a weight of the server's mask needs in the adaptive stage."""
        return least_votes(self.votes, self.clients, self.votes_above)

    @property
    def initial_least(self) -> int:
        """Votes that it needs in the initial stage."""
        return least_votes(self.initial_votes, self.clients, self.votes_above)

    @property
    def millionths(self) -> int:
        """`share` in millionths, with which its products are exact; below all of them."""
        return min(round(self.share * 1e6), 999_999)

    @property
    def stale(self) -> bool:
        """Whether a weight that is taken back has the value that the client last had of it, not 0."""
        return self.recovered == "stale"

    @property
    def since_pruning(self) -> bool:
        """Whether squared gradients are added up since the client's last pruning, not in the pruning round alone."""
        return self.gradients == "interval"


def pruning_settings(config: Any) -> PruningSettings:
    """The settings of a config."""
    rounds = config.pruning.rounds or config.rounds
    return PruningSettings(clients=config.clients.number, **{**config.pruning, "rounds": rounds})


def least_votes(share: float, clients: int, above: bool = False) -> int:
    """How many of N clients are at least this share of them, or, with `above`, more than it.

    Examples:
      >>> least_votes(0.6, 5), least_votes(0.8, 5), least_votes(0.8, 5, above=True)
      (3, 4, 5)
    """
    votes = round(share * clients, 9)  # 0.55 * 100 is a little above 55
    return math.floor(votes) + 1 if above else math.ceil(votes)


def held_masks(levels: Arrays) -> Arrays:
    """The server's mask of these levels, one bool array a prunable leaf."""
    return tuple(level == HELD for level in levels)


class MaskInputs(NamedTuple):
    """What a change of the server's mask follows from, in the prunable leaves' shapes.

    Attributes:
      masks: bool, the present ones of the server.
      weights: float32, of the server's model.
      votes: int32, how many of all clients hold each weight; () unless clients have masks of their own.
      before: float32, of the model with which the window began, as it was sent; () unless `ServerMask.reads_before`.
      squares: float32, what `SubmodelRule.evidence` has gathered since the last change; () for nothing.
      fixed_squares: float32 scalar, likewise of all values that are never pruned.
      window: int32 scalar, the last window.
      layer_s: float32 `[leaves]`, s of a round that one held weight of each leaf adds (`transport.round_time`).
      constant_s: s of a round without any of these weights.
    """

    masks: Arrays
    weights: Arrays
    votes: Arrays = ()
    before: Arrays = ()
    squares: Arrays = ()
    fixed_squares: Any = 0.0
    window: Any = 0
    layer_s: Any = ()
    constant_s: float = 0.0


Change = Callable[[MaskInputs, PruningSettings], Arrays]


@dataclasses.dataclass(frozen=True)
class ServerMask:
    """How a rule changes the server's mask after a window; traced functions, but for `due`.

    Attributes:
      change: the next mask; also in a first stage (`SubmodelRule.first_stage`), with `MaskInputs.window` 0.
      initial: the next one in the initial stage, which comes before training; None: there is none.
      due: (window, settings) -> whether the mask changes after that window, counted from 1; None: after each one in
        which clients have pruned.
      reads_before: whether `change` reads `MaskInputs.before`.
    """

    change: Change
    initial: Change | None = None
    due: Callable[[int, PruningSettings], bool] | None = None
    reads_before: bool = False

"""PruneFL (Jiang et al. 2022): one mask for all clients, whose size follows from loss and time of a round.

A round's loss falls by about the sum of the held weights' squared gradients, and it takes c + sum of t_l seconds over
the held weights, t_l by layer. PruneFL holds the weights that make the quotient of the two largest, among the sets that
contain the protected weights. Source: its public code, `control/algorithm.py` (the step), `configs/femnist.py` (the
numbers), `bases/fl/simulation/adaptive.py` (when).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from prfl_jax.submodel.largest import Arrays
from prfl_jax.submodel.shared_masks import count_held, remove_smallest
from prfl_jax.submodel.thresholds import highest_key, score_keys

REMOVAL, HALF_LIFE = 0.3, 10_000  # MAX_DEC_DIFF; ADJ_HALF_LIFE, rounds
SETTLED_CHANGES, SETTLED_BY = 5, 0.1  # prev_num; IP_THR


def prunefl_removal(round_number: Any, share: float = REMOVAL) -> Any:
    """The share of each layer that PruneFL removes first in a round of federated training, `share` in round 0."""
    return share * 0.5 ** (round_number / HALF_LIFE)


def prunefl_step(
    weights: Arrays,
    masks: Arrays,
    squares: Arrays,
    layer_s: jax.Array,
    removal: jax.Array,
    constant_s: jax.Array | float,
    fixed_squares: jax.Array,
) -> Arrays:
    """The next masks: `removal` of each layer goes by magnitude, then weights come back by their gradients.

    The weights that `remove_smallest` leaves are protected. All others, removed now or before, are candidates: they
    come back by descending g^2 / t_l while this quotient is above S / T. S is the sum of the squared gradients of the
    weights held so far and of all values that are never pruned, T = c + the sum of t_l over the weights held so far.
    Each weight that comes back raises S / T, and the next quotient is not larger, so the first quotient that is not
    above S / T ends the search, and equal quotients come back together. Let S(q) and T(q) be S and T with all
    candidates above q: a candidate comes back exactly where its quotient is above the highest q with S(q) >= q T(q).
    Bisection finds this q. Sums are float32.

    Args:
      squares: squared gradients, accumulated since the last step, of all weights, held or not.
      layer_s: float `[leaves]`, t_l > 0: seconds that one held weight of the layer adds to a round.
      removal: share of each layer, scalar (`prunefl_removal`).
      constant_s: c >= 0, seconds of a round without any prunable weight.
      fixed_squares: sum of the squares, accumulated alike, over all values that are never pruned.
    """
    kept = remove_smallest(weights, masks, removal)
    layer_s = jnp.asarray(layer_s, jnp.float32)
    kept_sums = [jnp.sum(jnp.where(mask, g, 0.0)) for mask, g in zip(kept, squares, strict=True)]
    kept_squares = fixed_squares + jnp.sum(jnp.stack(kept_sums))
    kept_s = constant_s + jnp.sum(layer_s * count_held(kept))
    # of each layer flat; -1, which is above no threshold, for weights that are held already
    keys = tuple(
        jnp.where(mask.reshape(-1), -1, score_keys(g / t)) for mask, g, t in zip(kept, squares, layer_s, strict=True)
    )

    def still_pays(key: jax.Array) -> jax.Array:
        back = tuple(k > key for k in keys)
        sums = [jnp.sum(jnp.where(b, g.reshape(-1), 0.0)) for b, g in zip(back, squares, strict=True)]
        total = kept_squares + jnp.sum(jnp.stack(sums))
        seconds = kept_s + jnp.sum(layer_s * count_held(back))
        return total >= lax.bitcast_convert_type(key, jnp.float32) * seconds

    threshold = highest_key(still_pays)
    return tuple(mask | (key > threshold).reshape(mask.shape) for mask, key in zip(kept, keys, strict=True))


@dataclasses.dataclass(frozen=True)
class InitialPruning:
    """When PruneFL's first stage, on one client's samples, begins to prune, prunes, and ends.

    Attributes:
      classes: of the task; pruning begins when the accuracy on these samples is at least 1.5 / `classes`.
      every: rounds from one pruning to the next; the first is in the round in which the accuracy is reached.
      most_rounds: after so many the stage ends in any case.
      look_every: until then the accuracy is looked at before the rounds 1, 1 + `look_every`, ...
    """

    classes: int
    every: int = 50
    most_rounds: int = 1000
    look_every: int = 10

    def begins(self, accuracy: float) -> bool:
        """Whether the accuracy, a share, is high enough to prune from this round on."""
        return accuracy >= 1.5 / self.classes

    def prunes(self, round_number: int, begun: int) -> bool:
        """Whether a round ends with a pruning; `begun` is the round in which the accuracy was reached."""
        return round_number >= begun and (round_number - begun) % self.every == 0

    def ends(self, round_number: int, held: Sequence[int]) -> bool:
        """Whether the stage is over after a round, numbered from 1.

        Args:
          held: weights of the model after each pruning so far. The stage is over when the last five changes were all
            at most 10 % of the size before.
        """
        sizes = list(held)[-SETTLED_CHANGES - 1 :]
        changes = [abs(after / before - 1.0) for before, after in zip(sizes, sizes[1:], strict=False)]
        settled = len(changes) == SETTLED_CHANGES and max(changes) <= SETTLED_BY
        return settled or round_number >= self.most_rounds

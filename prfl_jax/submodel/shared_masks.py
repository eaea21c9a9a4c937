"""Masks that the server keeps for all clients and changes now and then: pruning by magnitude, SNIP, iterative pruning.

A tuple holds one array for each prunable leaf (a layer), in the leaves' shapes; masks are boolean. The server's weights
may be other than 0 where a mask is False: a function that is given masks reads the held weights alone. PruneFL's step
is in `prunefl`, FedDST's and FedTiny's exchange of weights in `sparse_growth`.

Source of the federated forms of SNIP (Lee et al. 2019) and of iterative pruning: the public code of PruneFL (Jiang et
al. 2022, `bases/fl/simulation/snip.py` and `iterative.py`), which compares with them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from prfl_jax.submodel.largest import Arrays, largest, largest_by_layer

ITERATIVE_TIMES = 20  # PruneFL's public code: NUM_ITERATIVE_PRUNING


def count_held(masks: Arrays) -> jax.Array:
    """Weights that each layer holds, int32 `[leaves]`."""
    return jnp.stack([jnp.sum(mask, dtype=jnp.int32) for mask in masks])


def magnitudes(arrays: Arrays) -> Arrays:
    """Absolute values."""
    return tuple(map(jnp.abs, arrays))


def remove_smallest(weights: Arrays, masks: Arrays, share: jax.Array) -> Arrays:
    """Masks without the held weights of smallest magnitude, layer by layer; of equal ones the first stay.

    PruneFL removes weights so (`prune_by_pct` in its public code, where equal ones all stay), as do iterative pruning
    and FedDST's clients.

    Args:
      share: scalar in [0, 1]; floor(share x held weights) of each layer go, the product rounded to float32. At least
        one weight of a layer stays.
    """
    held = count_held(masks)
    removed = jnp.floor(jnp.float32(share) * held).astype(jnp.int32)
    kept = jnp.maximum(held - removed, jnp.minimum(held, 1))
    return largest_by_layer(magnitudes(weights), kept, among=masks)


def to_counts(weights: Arrays, counts: jax.Array) -> Arrays:
    """Masks of the weights of largest magnitude in each layer; of equal ones the first.

    FedDST's first masks, and its server's masks after each aggregation (`layer_prune` in its public code): there a
    weight that no client holds is 0.

    Args:
      counts: int32 `[leaves]`, how many weights each layer holds.
    """
    return largest_by_layer(magnitudes(weights), counts)


def snip_masks(weights: Arrays, updates: Arrays, count: jax.Array) -> Arrays:
    """SNIP's masks: the weights whose abs(weight x update / learning rate) is largest, over all layers together.

    -update / learning rate stands for the gradient: of one SGD step it is the gradient, of a federated round that of
    all local steps of all clients. The learning rate is the same for all weights and left out: it changes no order.
    SNIP's normalisation by the sum of all scores neither. Each layer keeps its own best weight in any case, so that
    none becomes empty.

    Args:
      weights: of the server before the round (PruneFL's public code: round 0).
      updates: what the round's aggregation adds to them.
      count: int32 scalar, weights that are held in all, at least one for each layer; ties by position.
    """

    def reserve(score: jax.Array) -> jax.Array:
        flat = score.reshape(-1)
        return flat.at[jnp.argmax(flat)].set(jnp.inf).reshape(score.shape)

    scores = tuple(jnp.abs(w * u) for w, u in zip(weights, updates, strict=True))
    return largest(tuple(map(reserve, scores)), count)


def iterative_rate(density: float, times: int = ITERATIVE_TIMES) -> float:
    """The share that each of `times` prunings removes so that `density` is left: 1 - density^(1 / times).

    Examples:
      >>> round(iterative_rate(0.25, times=2), 12)
      0.5
    """
    return 1.0 - density ** (1.0 / times)


def iterative_due(round_number: int, rounds: int, times: int = ITERATIVE_TIMES) -> bool:
    """Whether iterative pruning prunes at the end of a round: `times` equal steps in the first half of all rounds.

    Args:
      round_number: from 0; nothing is pruned in round 0.
      rounds: of the whole run.

    Raises:
      ValueError: fewer than two rounds for each pruning.
    """
    every = rounds // (2 * times)
    if every < 1:
        raise ValueError(f"{rounds} rounds are too few for {times} prunings in their first half")
    return 0 < round_number <= times * every and round_number % every == 0

"""The attacks that a config may name (`attack.name`), and which clients are malicious.

An attack is two functions of one client: the model it sends back, and the labels it trains on. JAX is imported when
they are traced, so that a config can be checked without it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from prfl_jax.clock.draws import MALICIOUS
from prfl_jax.registry import Registry

if TYPE_CHECKING:
    import jax


def _trained_model(sent: Any, trained: Any, scale: float, key: jax.Array) -> Any:
    """What an honest client sends back."""
    return trained


def _true_labels(y: jax.Array, classes: int) -> jax.Array:
    """What an honest client trains on."""
    return y


@dataclasses.dataclass(frozen=True)
class AttackRule:
    """One kind of attack.

    Attributes:
      apply: (w_sent, the trained model w, scale, key) -> the model that is sent back, before it is masked; pytrees.
      labels: (labels y, number of classes) -> the labels that it trains on.
    """

    apply: Callable[[Any, Any, float, jax.Array], Any] = _trained_model
    labels: Callable[[jax.Array, int], jax.Array] = _true_labels


def _sign_flip(sent: Any, trained: Any, scale: float, key: jax.Array) -> Any:
    """w_sent - scale (w - w_sent)."""
    import jax

    return jax.tree.map(lambda before, after: before - scale * (after - before), sent, trained)


def _noise(sent: Any, trained: Any, scale: float, key: jax.Array) -> Any:
    """w_sent + scale N(0, 1)."""
    import jax

    from prfl_jax.robustness.update_filter import normals_like

    return jax.tree.map(lambda before, z: before + scale * z, sent, normals_like(key, sent))


def _nan(sent: Any, trained: Any, scale: float, key: jax.Array) -> Any:
    """NaN for each weight."""
    import jax
    import jax.numpy as jnp

    return jax.tree.map(lambda w: jnp.full_like(w, jnp.nan), trained)


def _flipped_labels(y: jax.Array, classes: int) -> jax.Array:
    """Class c becomes classes - 1 - c."""
    return classes - 1 - y


# None: all clients are honest.
ATTACKS: Registry[AttackRule | None] = Registry(
    "attack.name",
    {
        "none": None,
        "sign_flip": AttackRule(apply=_sign_flip),
        "noise": AttackRule(apply=_noise),
        "nan": AttackRule(apply=_nan),
        "label_flip": AttackRule(labels=_flipped_labels),
    },
)


def malicious_clients(attack: Any, clients: int, seed: int) -> tuple[int, ...]:
    """The malicious clients' numbers, ascending: `attack.clients`, or `attack.number` of them drawn by the seed.

    Args:
      attack: the group `attack` of a config.
      clients: M.
    """
    if ATTACKS.find(attack.name) is None:
        return ()
    chosen: Sequence[int] = attack.clients
    if not chosen:
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed % 2**64, MALICIOUS))))
        chosen = rng.choice(clients, attack.number, replace=False).tolist()
    return tuple(sorted(chosen))

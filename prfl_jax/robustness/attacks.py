"""Clients that lie: what they train on, and what they tell the server instead of what they have trained.

A choice is two functions of one client, so a new lie is one more entry. Liars take part like everybody else: the clock,
bytes and the training loss in the records are those of an honest client.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prfl_jax.clock.draws import LIARS
from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.masks import apply_masks


@dataclasses.dataclass(frozen=True)
class AttackRule:
    """One kind.

    Attributes:
      apply: `apply(sent, trained, scale, key)`, the model that is sent back (masked afterwards); pytrees.
      labels: `labels(y, classes)`, the labels it trains on.
    """

    apply: Callable[[Any, Any, float, jax.Array], Any] = lambda sent, trained, scale, key: trained
    labels: Callable[[jax.Array, int], jax.Array] = lambda y, classes: y


def _turned(sent: Any, trained: Any, scale: float, key: jax.Array) -> Any:
    return jax.tree.map(lambda before, after: before - scale * (after - before), sent, trained)


def normals_like(key: jax.Array, tree: Any) -> Any:
    """N(0, 1) of each weight."""
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(treedef, [jax.random.normal(k, w.shape) for k, w in zip(keys, leaves, strict=True)])


def _noise(sent: Any, trained: Any, scale: float, key: jax.Array) -> Any:
    return jax.tree.map(lambda before, z: before + scale * z, sent, normals_like(key, sent))


ATTACKS = {
    "sign_flip": AttackRule(apply=_turned),  # w_sent - scale (w - w_sent)
    "noise": AttackRule(apply=_noise),  # w_sent + scale N(0, 1)
    "nan": AttackRule(
        apply=lambda sent, trained, scale, key: jax.tree.map(lambda w: jnp.full_like(w, jnp.nan), trained)
    ),
    "label_flip": AttackRule(labels=lambda y, classes: classes - 1 - y),
}
KINDS = tuple(ATTACKS)


@dataclasses.dataclass(frozen=True)
class Attack:
    """A kind of lie and its scale, as `config.attack` says."""

    name: str
    scale: float

    def labels(self, y: jax.Array, malicious: jax.Array, classes: int) -> jax.Array:
        """`[...]` labels that a client trains on; `malicious` is whether it is a liar."""
        return jnp.where(malicious, ATTACKS[self.name].labels(y, classes), y)

    def present(self, present: jax.Array, malicious: jax.Array) -> jax.Array:
        """`[labels]` bool, which labels a client seems to have, of those that it has."""
        labels = jnp.arange(present.shape[-1])
        seems = jnp.zeros_like(present).at[ATTACKS[self.name].labels(labels, len(labels))].set(present)
        return jnp.where(malicious, seems, present)

    def apply(
        self,
        layout: Layout,
        sent: Any,
        trained: Any,
        masks: tuple[jax.Array, ...],
        malicious: jax.Array,
        key: jax.Array,
    ) -> Any:
        """The model that a client sends back; 0 where it was sent no weight."""
        told = ATTACKS[self.name].apply(sent, trained, self.scale, key)
        told = jax.tree.map(lambda lie, truth: jnp.where(malicious, lie, truth), told, trained)
        return apply_masks(layout, told, masks)


def malicious_clients(attack: Any, clients: int, seed: int) -> tuple[int, ...]:
    """Which clients lie, by number: `attack.clients`, or `attack.number` of them drawn by the seed."""
    if attack.name == "none":
        return ()
    chosen: Sequence[int] = attack.clients
    if not chosen:
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed % 2**64, LIARS))))
        chosen = rng.choice(clients, attack.number, replace=False).tolist()
    return tuple(sorted(chosen))

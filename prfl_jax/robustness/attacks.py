"""Malicious clients on the device: the labels they train on, and the model they send back instead of the trained one.

They take part like honest clients: the clock, bytes and the training loss in the records are those of an honest client.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from prfl_jax.robustness.attack_rules import ATTACKS, AttackRule, malicious_clients
from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.masks import apply_masks

__all__ = ["ATTACKS", "Attack", "AttackRule", "make_attack", "malicious_clients"]


@dataclasses.dataclass(frozen=True)
class Attack:
    """The attack of a config, as it acts on one client.

    Attributes:
      rule: what is done to labels and model.
      scale: `attack.scale`.
    """

    rule: AttackRule
    scale: float

    def labels(self, y: jax.Array, malicious: jax.Array, classes: int) -> jax.Array:
        """`[...]` labels that a client trains on, of its own `y` `[...]`; `malicious` is a bool scalar.

        Where a step of a sequence has no target (-1) it has none.
        """
        return jnp.where(malicious & (y >= 0), self.rule.labels(y, classes), y)

    def present(self, present: jax.Array, malicious: jax.Array) -> jax.Array:
        """`[labels]` bool: labels a client reports, of those `present` `[labels]`; `malicious` is a bool scalar."""
        labels = jnp.arange(present.shape[-1])
        reported = jnp.zeros_like(present).at[self.rule.labels(labels, len(labels))].set(present)
        return jnp.where(malicious, reported, present)

    def apply(
        self,
        layout: Layout,
        sent: Any,
        trained: Any,
        masks: tuple[jax.Array, ...],
        malicious: jax.Array,
        key: jax.Array,
    ) -> Any:
        """The model that a client sends back; 0 where its masks hold no weight.

        Args:
          sent, trained: the model that it was sent, and what its training made of that.
          masks: bool, one array a prunable leaf.
          malicious: bool scalar, whether the client attacks.
          key: of random attacks.
        """
        attacked = self.rule.apply(sent, trained, self.scale, key)
        received = jax.tree.map(lambda false, true: jnp.where(malicious, false, true), attacked, trained)
        return apply_masks(layout, received, masks)


def make_attack(config: Any) -> Attack | None:
    """The attack of a config's group `attack`; None: all clients are honest."""
    rule = ATTACKS.find(config.name)
    return None if rule is None else Attack(rule, config.scale)

"""The training losses: from logits `[B, K]` and labels `[B]` to one loss per sample `[B]`."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from prfl_jax.models.choices import LOSSES

Loss = Callable[[jax.Array, jax.Array], jax.Array]


def sigmoid_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Sigmoid cross-entropy on one-hot labels, mean over the classes (the release's loss)."""
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, targets), axis=-1)


def softmax_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Softmax cross-entropy with integer labels."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def make_loss(name: str) -> Loss:
    """The loss that `model.loss` names.

    Raises:
      UserError: there is no such loss.
    """
    function: Loss = LOSSES.find(name).function.load()
    return function

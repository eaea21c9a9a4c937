"""Normalisation layers of the built-in networks: the choices of `model.norm`."""

from __future__ import annotations

import flax.linen as nn
import jax

EPSILON = 1e-5  # as in PyTorch
GROUPS = 2  # of channels, as in most work on federated learning (Hsieh et al. 2020)


def batch_norm(x: jax.Array, train: bool, name: str) -> jax.Array:
    """Batch norm of `[..., C]`: gain, bias, and running statistics that move by a tenth in each step of training."""
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=EPSILON, name=name)(x)


def group_norm(x: jax.Array, train: bool, name: str) -> jax.Array:
    """Group norm of `[B, ..., C]` in two groups of channels, or one where C is odd; gain and bias, no state."""
    groups = GROUPS if x.shape[-1] % GROUPS == 0 else 1
    return nn.GroupNorm(num_groups=groups, epsilon=EPSILON, name=name)(x)


def no_norm(x: jax.Array, train: bool, name: str) -> jax.Array:
    """Nothing."""
    return x

"""Modules of a user's own, each with something that a simulator may trip over. Images are `[B, 6, 6, 1]`."""

from __future__ import annotations

import enum
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

SHAPE = (6, 6, 1)


def flat(x):
    return x.reshape(x.shape[0], -1)


class Buffer(nnx.Variable):
    """A variable of a user's own kind."""


# Modules that look across their batch. Each is given the hidden units [B, 8] and gives as many.


def batch_norm(module, h):
    return (h - h.mean(0)) / jnp.sqrt(h.var(0) + 1e-5)


def attention(module, h):
    return jax.nn.softmax(h @ h.T / 8.0, axis=-1) @ h


def batch_max(module, h):
    return h - jax.lax.stop_gradient(h.max(0))


def softmax_over_batch(module, h):
    return jax.nn.softmax(h, axis=0)


def first_of_batch(module, h):
    return h - h[0]


def rolled(module, h):
    return jnp.roll(h, 1, axis=0)


def next_to(module, h):
    return h + 0.001 * jnp.concatenate([h[1:], h[:1]])


def in_order(module, h):
    return jnp.sort(h, axis=0)


def ranked(module, h):
    return h * jnp.argsort(jnp.argsort(h[:, 0])).astype(jnp.float32)[:, None]


def own_mean_of_all(module, h):
    return h / (1.0 + jnp.abs(h).mean())


def by_size(module, h):
    return h / h.shape[0]


def only_in_large_batches(module, h):
    return h - h.mean(0) if h.shape[0] > 60 else h


def past_the_64th(module, h):
    return jnp.concatenate([h[:64], h[64:] - h[:64].mean(0)])


def scaled_in_large_batches(module, h):
    return h * (1.0 if h.shape[0] <= 60 else 0.5)


def noise_by_position(module, h):
    return h + 0.1 * jax.random.normal(jax.random.key(3), h.shape)


def behind_a_gate_of_zero(module, h):
    return h + module.param("gate", nn.initializers.zeros, ()) * h.mean(0)


def behind_a_closed_sigmoid(module, h):
    return h + jax.nn.sigmoid(module.param("gate", nn.initializers.constant(-30.0), ())) * h.mean(0)


def behind_a_relu_that_is_dead(module, h):
    gate = module.param("gate", nn.initializers.constant(-1.0), (8,))
    return h + nn.relu(gate) * h.mean(0)


def batch_norm_of_flax(module, h):
    return nn.BatchNorm(use_running_average=False)(h)


def weak(module, h):
    return h + 1e-4 * h.mean(0)


def in_bfloat16(module, h):
    h = h.astype(jnp.bfloat16)
    return h - h.mean(0)


ACROSS = [
    batch_norm, attention, batch_max, softmax_over_batch, first_of_batch, rolled, next_to, in_order, ranked,
    own_mean_of_all, by_size, only_in_large_batches, past_the_64th, scaled_in_large_batches, noise_by_position,
    behind_a_gate_of_zero, behind_a_closed_sigmoid, behind_a_relu_that_is_dead, batch_norm_of_flax, weak, in_bfloat16,
]  # fmt: skip

# Such that treat each image by itself.


def plain(module, h):
    return h


def layer_norm(module, h):
    return nn.LayerNorm()(h)


def group_norm(module, h):
    return nn.GroupNorm(num_groups=2)(h)


def statistics_in_training_only(module, h):
    return h if module.is_evaluating else (h - h.mean(0)) / jnp.sqrt(h.var(0) + 1e-5)


def deep_bfloat16(module, h):
    for _ in range(6):
        h = nn.relu(nn.Dense(64, dtype=jnp.bfloat16)(h))
    return h


def deep_float16(module, h):
    for _ in range(3):
        h = nn.tanh(nn.Dense(64, dtype=jnp.float16)(h))
    return h


def nearest_code(module, h):
    codes = module.param("codes", nn.initializers.normal(1.0), (16, 8))
    return codes[jnp.argmin(((h[:, None] - codes) ** 2).sum(-1), axis=-1)] + h


def by_row(module, h):
    return h[jnp.arange(h.shape[0]), :] * jnp.take_along_axis(h, h.argmax(-1)[:, None], axis=1)


def attention_within_an_image(module, h):
    return nn.MultiHeadDotProductAttention(num_heads=2)(h.reshape(-1, 2, 4)).reshape(h.shape)


def mapped_over_images(module, h):
    return jax.vmap(lambda one: one / jnp.linalg.norm(one))(h)


def scanned(module, h):
    return nn.RNN(nn.GRUCell(4))(h.reshape(-1, 4, 2))[:, -1]


def logarithms(module, h):
    return jnp.where(h > 0, jnp.log(jnp.where(h > 0, h, 1.0)), 0.0)


def running_average_alone(module, h):
    return nn.BatchNorm(use_running_average=True)(h)


ALONE = [
    plain, layer_norm, group_norm, statistics_in_training_only, deep_bfloat16, deep_float16, nearest_code, by_row,
    attention_within_an_image, mapped_over_images, scanned, logarithms, running_average_alone,
]  # fmt: skip


class Around(nn.Module):
    """One of the above between two dense layers."""

    inner: object
    classes: int = 4
    is_evaluating = False

    @nn.compact
    def __call__(self, x, train):
        object.__setattr__(self, "is_evaluating", not train)
        h = nn.Dense(8)(flat(x))
        return nn.Dense(self.classes)(self.inner(self, h))

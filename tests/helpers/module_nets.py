"""Modules of a user's own for whole runs, of images `[B, 28, 28, 1]`."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx


class Buffer(nnx.Variable):
    pass


class NnxProjected(nnx.Module):
    """A fixed random projection in whole numbers and floats, then a layer that is trained."""

    def __init__(self, classes, *, rngs):
        self.projection = Buffer(jax.random.normal(rngs.params(), (784, 30)) / 28)
        self.order = nnx.Variable(jax.random.permutation(rngs.params(), 784))
        self.out = nnx.Linear(30, classes, rngs=rngs)

    def __call__(self, x):
        h = x.reshape(x.shape[0], -1)[:, self.order[...]] @ self.projection[...]
        return self.out(jnp.maximum(h, 0))


class LinenProjected(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x):
        normal = nn.initializers.normal(1 / 28)
        order = self.variable("indices", "order", lambda: jax.random.permutation(self.make_rng("params"), 784))
        projection = self.variable("buffers", "projection", lambda: normal(self.make_rng("params"), (784, 30)))
        h = x.reshape(x.shape[0], -1)[:, order.value] @ projection.value
        return nn.Dense(self.classes, name="out")(jnp.maximum(h, 0))


class OwnBatch(nn.Module):
    """Normalises by the batch's own statistics, in evaluation too."""

    classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(16)(x.reshape(x.shape[0], -1))
        return nn.Dense(self.classes)(nn.relu((x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-5)))


class InLargeBatches(nn.Module):
    """As `OwnBatch`, but only from 37 images on."""

    classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(16)(x.reshape(x.shape[0], -1))
        return nn.Dense(self.classes)(x - x.mean(0) if 37 <= x.shape[0] < 64 else x)


class Vectors(nn.Module):
    """No weight of rank 2."""

    classes: int

    @nn.compact
    def __call__(self, x):
        b = self.param("b", nn.initializers.zeros, (self.classes,))
        s = self.param("s", nn.initializers.ones, ())
        return x.reshape(x.shape[0], -1)[:, : self.classes] * s + b


class OneNumber(nn.Module):
    """One scalar."""

    classes: int

    @nn.compact
    def __call__(self, x):
        return x.reshape(x.shape[0], -1)[:, : self.classes] * self.param("s", nn.initializers.ones, ())


class NoParams(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x):
        return x.reshape(x.shape[0], -1)[:, : self.classes]


class NoFeatures(nn.Module):
    """A layer of no features, whose kernel has no values."""

    classes: int

    @nn.compact
    def __call__(self, x):
        x = x.reshape(x.shape[0], -1)
        nothing = nn.Dense(0, kernel_init=nn.initializers.zeros)(x)
        return nn.Dense(self.classes)(jnp.concatenate([x[:, :50], nothing], axis=1))


class InBfloat16(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(16, dtype=jnp.bfloat16)(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.classes, dtype=jnp.bfloat16)(x)


class InFloat16(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.classes, dtype=jnp.float16)(x.reshape(x.shape[0], -1))


class DropPath(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x, is_training):
        x = nn.relu(nn.Dense(16)(x.reshape(x.shape[0], -1)))
        x = nn.Dropout(0.1, rng_collection="droppath")(x, deterministic=not is_training)
        return nn.Dense(self.classes)(x + (self.make_rng("noise") is None))


class FailsInTraining(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x, train):
        if train:
            raise RuntimeError("training was never tried")
        return nn.Dense(self.classes)(x.reshape(x.shape[0], -1))


class PairsInTraining(nn.Module):
    """Takes even batches alone in training."""

    classes: int

    @nn.compact
    def __call__(self, x, train):
        x = x.reshape(x.shape[0], -1)
        x = x.reshape(-1, 2, 784).reshape(x.shape) if train else x
        return nn.Dense(self.classes)(x)


class HasNoGradient(nn.Module):
    """A loop whose length its own input decides."""

    classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(self.classes)(x.reshape(x.shape[0], -1))
        return jax.lax.while_loop(lambda h: jnp.any(jnp.abs(h) > 1e9), lambda h: h / 2, x)

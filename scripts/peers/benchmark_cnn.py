"""pfl-research's benchmark network in Flax: two 3x3 convolutions (32, 64), one pool, a dense layer of 128."""

from __future__ import annotations

import flax.linen as nn
import jax

from prfl_jax.models.nets import max_pool2


class BenchmarkCnn(nn.Module):
    """Images `[B, 32, 32, 3]` to logits `[B, classes]`."""

    classes: int = 10

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for k, features in enumerate((32, 64)):
            x = nn.relu(nn.Conv(features, (3, 3), padding="VALID", name=f"conv{k}")(x))
        x = max_pool2(x).reshape(len(x), -1)
        x = nn.relu(nn.Dense(128, name="dense0")(x))
        return nn.Dense(self.classes, name="dense1")(x)

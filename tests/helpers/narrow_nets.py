"""Small modules that say how they are built narrower, and one that does not."""

import flax.linen as nn
import jax


class ByWidth(nn.Module):
    """Two hidden layers, both as wide as the field says or three quarters of it."""

    classes: int
    width: int = 16

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Dense(self.width)(x.reshape(x.shape[0], -1)))
        x = nn.relu(nn.Dense(-(-3 * self.width // 4))(x))
        return nn.Dense(self.classes)(x)


class ByShare(nn.Module):
    """One hidden layer with batch norm; a share of its units is asked for by a method."""

    classes: int
    units: int = 10

    def narrower(self, share: float) -> nn.Module:
        return self.clone(units=max(2, round(self.units * share)))

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.Dense(self.units)(x.reshape(x.shape[0], -1))
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.5)(x))
        return nn.Dense(self.classes)(x)


class Wider(ByShare):
    """One that gives a wider module."""

    def narrower(self, share: float) -> nn.Module:
        return self.clone(units=2 * self.units)


class OtherLayers(ByShare):
    """One that gives a module of other layers."""

    def narrower(self, share: float) -> nn.Module:
        return ByWidth(self.classes, 4)


class Broken(ByShare):
    """One whose method raises."""

    def narrower(self, share: float) -> nn.Module:
        raise RuntimeError("no\nnarrower one")


class Scaled(nn.Module):
    """One that also divides by the root of its width."""

    classes: int
    width: int = 16

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Dense(self.width)(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.classes)(x / self.width**0.5)

"""The server's step on the device: from W towards the aggregate, under what clients hold (`server_optimizers.py`)."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prfl_jax.local.factories import OptaxFactory
from prfl_jax.local.moments import kept_where_not_held


class ServerStepRule(abc.ABC):
    """A server optimiser: pure functions of the model, the pseudo-gradient D and a state. Two equal ones step alike."""

    @abc.abstractmethod
    def init(self, params: Any) -> Any:
        """The state before the first step; parts in the shape of the model hold one value for each weight."""

    @abc.abstractmethod
    def update(self, d: Any, state: Any, params: Any, eta: jax.Array) -> tuple[Any, Any]:
        """(what is added to W, the next state), for a pytree D like W."""


class Moments(NamedTuple):
    """The first and the second moment of each weight."""

    m: Any
    v: Any


@dataclasses.dataclass(frozen=True)
class Momentum(ServerStepRule):
    """SGD with momentum (FedAvgM); the state is m."""

    momentum: float

    def init(self, params: Any) -> Any:
        """0."""
        return jax.tree.map(jnp.zeros_like, params)

    def update(self, d: Any, state: Any, params: Any, eta: jax.Array) -> tuple[Any, Any]:
        """m <- momentum m + D; eta m."""
        m = jax.tree.map(lambda m, d: self.momentum * m + d, state, d)
        return jax.tree.map(lambda m: eta * m, m), m


# (v, D^2, b2) -> the next v
SecondMoment = Callable[[jax.Array, jax.Array, float], jax.Array]


def adagrad(v: jax.Array, square: jax.Array, b2: float) -> jax.Array:
    """The second moment `v` of FedAdagrad: the sum of the `square`s of D."""
    return v + square


def adam(v: jax.Array, square: jax.Array, b2: float) -> jax.Array:
    """The second moment `v` of FedAdam: a running mean of the `square`s of D."""
    return b2 * v + (1.0 - b2) * square


def yogi(v: jax.Array, square: jax.Array, b2: float) -> jax.Array:
    """The second moment `v` of FedYogi, which moves by a share of the `square` of D whatever its own size."""
    return v - (1.0 - b2) * square * jnp.sign(v - square)


@dataclasses.dataclass(frozen=True)
class Adaptive(ServerStepRule):
    """FedAdagrad, FedAdam and FedYogi (Reddi et al. 2021, Algorithm 2); the state is `Moments`.

    Attributes:
      second: of the method.
      b1, b2, tau: its constants.
    """

    second: SecondMoment
    b1: float
    b2: float
    tau: float

    def init(self, params: Any) -> Moments:
        """m = 0, v = tau^2."""
        return Moments(
            jax.tree.map(jnp.zeros_like, params), jax.tree.map(lambda w: jnp.full_like(w, self.tau**2), params)
        )

    def update(self, d: Any, state: Any, params: Any, eta: jax.Array) -> tuple[Any, Moments]:
        """eta m / (sqrt(v) + tau)."""
        m = jax.tree.map(lambda m, d: self.b1 * m + (1.0 - self.b1) * d, state.m, d)
        v = jax.tree.map(lambda v, d: self.second(v, d * d, self.b2), state.v, d)
        return jax.tree.map(lambda m, v: eta * m / (jnp.sqrt(v) + self.tau), m, v), Moments(m, v)


@dataclasses.dataclass(frozen=True)
class Optax(ServerStepRule):
    """An optax transformation, to which -D is the gradient: `optax.sgd(1.0)` steps to the aggregate.

    Attributes:
      factory: makes it for the rate eta.
      transformation: without a factory, itself; its updates are multiplied by eta.
    """

    factory: OptaxFactory | None = None
    transformation: Any = None

    def init(self, params: Any) -> Any:
        """The transformation's."""
        return self._made(jnp.float32(1.0)).init(params)

    def update(self, d: Any, state: Any, params: Any, eta: jax.Array) -> tuple[Any, Any]:
        """The transformation's."""
        update, state = self._made(eta).update(jax.tree.map(jnp.negative, d), state, params)
        return (update if self.factory is not None else jax.tree.map(lambda u: eta * u, update)), state

    def _made(self, eta: jax.Array) -> Any:
        return self.transformation if self.factory is None else self.factory.make(eta)


def server_step(
    rule: ServerStepRule, params: Any, aggregate: Any, held: Any, state: Any, eta: jax.Array
) -> tuple[Any, Any]:
    """One step of the server.

    Args:
      params: W^{n-1}, a pytree.
      aggregate: what the aggregation alone would make of it, with `server_lr` 1.
      held: `kernels.ServerStep.held`: booleans that broadcast to the leaves. The other weights keep their value, and
        their place in each part of the state that has the shape of the model. What else the state has, such as counts,
        stays only if nothing is held.
      state: of the optimiser.
      eta: its rate, a float32 scalar.

    Returns:
      (W^n, the next state).
    """
    d = jax.tree.map(lambda w, new, there: jnp.where(there, new - w, 0.0), params, aggregate, held)
    change, stepped = rule.update(d, state, params, eta)
    new = jax.tree.map(lambda w, c, there: jnp.where(there, w + c, w), params, change, held)
    return new, kept_where_not_held(held, params, state, stepped)

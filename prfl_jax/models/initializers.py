"""Initial weights of the built-in networks: the choices of `model.init`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def uniform(bound: float) -> Any:
    """Uniform in [-bound, bound]."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


@dataclasses.dataclass(frozen=True)
class Initialization:
    """One choice. Each function takes the bound of the release of PR-FL's authors and returns a Flax initializer.

    Attributes:
      kernel: of a layer's kernel.
      conv_bias: of a convolution's bias; dense layers begin with a bias of 0.
      recurrent: of what a recurrent layer multiplies its own output with, gate by gate.
      embedding: of the vectors of tokens, no function of a bound.
    """

    kernel: Callable[[float], Any]
    conv_bias: Callable[[float], Any] = lambda bound: nn.initializers.zeros
    recurrent: Callable[[float], Any] = lambda bound: nn.initializers.orthogonal()
    embedding: Any = nn.linear.default_embed_init


# PyTorch's defaults, of convolutions the bias too
RELEASE = Initialization(uniform, uniform, uniform, nn.initializers.normal(1.0))
HE = Initialization(lambda bound: nn.initializers.he_uniform())
FLAX = Initialization(lambda bound: nn.initializers.lecun_normal())

"""The model that HeteroFL's clients train (Diao et al. 2021): hidden outputs / rate, logits of absent labels masked."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from prfl_jax.models.architectures import ARCHITECTURES
from prfl_jax.models.build import Model


def scaled_model(model: Model, rate: jax.Array, present: jax.Array) -> Model:
    """`model` as a client trains it.

    In training every hidden layer's output (before its ReLU) is divided by `rate`, so that a
    narrow network's activations are as large as the full one's, and logits of labels that the
    client does not have are 0, so that nothing is learned about them. Evaluation is untouched.

    Args:
      model: a built-in one.
      rate: scalar, the share of channels.
      present: `[classes]` bool.
    """
    output = ARCHITECTURES[model.name].output

    def interceptor(function: Any, args: Any, kwargs: Any, context: Any) -> Any:
        out = function(*args, **kwargs)
        layer = isinstance(context.module, nn.Conv | nn.Dense) and context.method_name == "__call__"
        return out / rate if layer and context.module.name != output else out

    def apply(params: Any, x: jax.Array, train: bool, key: jax.Array | None) -> jax.Array:
        if not train:
            return model.apply(params, x, train, key)
        with nn.intercept_methods(interceptor):
            logits = model.apply(params, x, train, key)
        return jnp.where(present, logits, 0.0)

    return dataclasses.replace(model, apply=apply)

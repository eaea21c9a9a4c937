"""The choices of `model.name`, `model.loss` and `model.init`; what needs JAX is imported when it is found."""

from __future__ import annotations

from typing import Any

from prfl_jax.registry import Lazy, Registry


def _any_module(name: str, found: Any) -> Any:
    """A plugin as it is; `build.wrap_module` checks that it is a Flax module, and what it computes."""
    return found


# Flax module classes; the built-in ones take `classes`, `width` and `init_name`
MODELS: Registry[Any] = Registry(
    "model.name",
    {"conv2": Lazy("prfl_jax.models.nets:Conv2"), "vgg11": Lazy("prfl_jax.models.nets:VGG11")},
    _any_module,
)

# functions of logits `[B, K]` and labels `[B]`, see `losses.Loss`
LOSSES: Registry[Any] = Registry(
    "model.loss",
    {
        "sigmoid": Lazy("prfl_jax.models.losses:sigmoid_loss"),
        "softmax": Lazy("prfl_jax.models.losses:softmax_loss"),
    },
)

# how the weights of the built-in networks are drawn, see `initializers.Initialization`
INITS: Registry[Any] = Registry(
    "model.init",
    {
        "release": Lazy("prfl_jax.models.initializers:RELEASE"),
        "he": Lazy("prfl_jax.models.initializers:HE"),
        "flax": Lazy("prfl_jax.models.initializers:FLAX"),
    },
)

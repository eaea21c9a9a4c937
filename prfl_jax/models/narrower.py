"""Makes a narrower network of a model: the same layers with a share of their channels.

A built-in network is made with a smaller `width`. A user's linen module says how by a method `narrower(share)` that
returns a module, or has a field `width`, an integer or a float, that all its hidden sizes are proportional to.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import jax

from prfl_jax.models.architectures import Narrower
from prfl_jax.models.build import Model, flat_paths
from prfl_jax.models.choices import MODELS
from prfl_jax.models.linen_adapter import linen_functions
from prfl_jax.system.errors import UserError, first_line
from prfl_jax.system.jax_settings import root_key

WORDS = "a built-in network, or a linen module without fixed variables that has a field width or a method narrower"


def narrower(model: Model, share: float) -> Model:
    """The model with a share of its channels; its `flop` are still those of the whole one.

    Args:
      share: in (0, 1); in a built-in network each layer that `width` scales has that share, rounded up.

    Raises:
      UserError: the module does not say how, or what it says cannot be built; one line.
    """
    begin = f"config.model.name: {model.name!r}"
    make = _maker(model)
    if make is None:
        raise UserError(f"{begin} does not say how it is built narrower; allowed: {WORDS}")
    try:
        module = make(share)
        functions = linen_functions(model.name, module, model.sample)
        shapes = jax.eval_shape(functions.init, root_key(0))
    except (Exception, SystemExit) as error:  # whatever a user's code raises
        said = first_line(error)
        raise UserError(f"{begin} cannot be built with {share:g} of its channels: {said}; allowed: {WORDS}") from error
    if flat_paths(shapes).keys() != flat_paths(model.shapes()).keys():
        raise UserError(f"{begin} has other params with {share:g} of its channels; allowed: the same layers, narrower")
    return dataclasses.replace(
        model,
        init=functions.init,
        apply=functions.apply,
        fixed=functions.fixed,
        train_step=functions.step if model.has_state else None,
        channel_groups=getattr(module, "channel_groups", None),
        module=module,
    )


def scales_by_itself(model: Model) -> bool:
    """Whether it is a built-in network, in which a width is nothing but a number of channels."""
    return model.name in MODELS


def _maker(model: Model) -> Callable[[float], Any] | None:
    """From a share to the narrower module; None where the module does not say how."""
    module: Any = model.module
    if module is None or jax.eval_shape(lambda: model.fixed(root_key(0))):  # those may be as wide as its layers
        return None
    if scales_by_itself(model):
        return lambda share: module.clone(width=Narrower(module.width, share))
    if callable(own := getattr(type(module), "narrower", None)):
        # without linen's wrapper, which would make a module that the method constructs a part of this one
        return functools.partial(inspect.unwrap(own), module)
    width = getattr(module, "width", None)
    if "width" not in type(module).__dataclass_fields__ or isinstance(width, bool):
        return None
    if isinstance(width, int):
        return lambda share: module.clone(width=math.ceil(width * share - 1e-9))
    return (lambda share: module.clone(width=width * share)) if isinstance(width, float) else None

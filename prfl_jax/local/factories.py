"""`OptaxFactory`: a function that makes an optax transformation from a learning rate, by name or from a user's file.

Local and server optimisers are made by it. optax, which imports JAX, is imported only where one is looked up.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

from prfl_jax import registry
from prfl_jax.system import keyword_args

RATE = "learning_rate"  # the argument that every factory takes
WORDS = "a function (learning_rate, **arguments) that returns an optax.GradientTransformation"

_SHARE: keyword_args.Range = (lambda v: 0 <= v < 1, "in [0, 1)")
# of the constants that optimisers of optax and of the server call so
RANGES: dict[str, keyword_args.Range] = {
    **dict.fromkeys(("momentum", "b1", "b2", "b3", "decay", "rho"), _SHARE),
    "eps": (lambda v: v >= 0, ">= 0"),
}


@dataclasses.dataclass(frozen=True)
class OptaxFactory:
    """A factory with its arguments.

    Attributes:
      function: (learning_rate, **arguments) -> optax.GradientTransformation.
      args: the arguments, as `keyword_args.canonical` writes them, so that equal ones compare equal.
    """

    function: Callable[..., Any]
    args: str = keyword_args.NONE

    def make(self, learning_rate: Any) -> Any:
        """The transformation for a learning rate, which may be traced."""
        return self.function(**{RATE: learning_rate}, **keyword_args.parse(self.args))


@functools.cache
def of_optax(name: str) -> Callable[..., Any] | None:
    """optax's factory of that name; None where optax has no optimiser of it that takes a learning rate."""
    if re.fullmatch(r"[a-z]\w*", name) is None or name.startswith(
        "scale_by_"
    ):  # a part of an optimiser, without its sign
        return None
    import optax

    found = getattr(optax, name, None)
    if not inspect.isfunction(found) or not takes_a_rate(found):
        return None
    # what draws noise would draw the same in each round, as its state begins anew
    return None if inspect.signature(found).parameters.keys() & {"key", "seed"} else found


def takes_a_rate(function: Callable[..., Any]) -> bool:
    """Whether a function takes an argument of the name `learning_rate`."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # a callable without a signature
        return False
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return RATE in parameters and parameters[RATE].kind in kinds


def accept(key: str, name: str, found: Any) -> Callable[..., Any]:
    """A plugin as a factory.

    Args:
      key: that names it, `local.optimizer`.

    Raises:
      UserError: it is none.
    """
    if not callable(found) or isinstance(found, type) or not takes_a_rate(found):
        raise registry.wrong(f"config.{key}", name, found, WORDS)
    return found  # type: ignore[no-any-return]

"""The choices of `aggregation.optimizer`: how the server steps from its model towards the aggregate of a close.

The pseudo-gradient is D = aggregate - W, where the aggregate is that of `aggregation.server_lr` 1; eta, the rate of the
step, is `aggregation.server_lr` (Reddi et al. 2021, "Adaptive Federated Optimization", Algorithm 2, without bias
correction):

- `sgdm` (FedAvgM, Hsu et al. 2019): m <- momentum m + D, W <- W + eta m.
- the others: m <- b1 m + (1 - b1) D, W <- W + eta m / (sqrt(v) + tau), with v_0 = tau^2 and
  `adagrad`: v <- v + D^2; `adam`: v <- b2 v + (1 - b2) D^2; `yogi`: v <- v - (1 - b2) D^2 sign(v - D^2).

Nothing here imports JAX, except for an optimiser from a user's file; `server_step.py` is the device's part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from prfl_jax import registry
from prfl_jax.local import factories
from prfl_jax.local.factories import OptaxFactory
from prfl_jax.registry import Registry
from prfl_jax.system import keyword_args
from prfl_jax.system.errors import refuse

if TYPE_CHECKING:
    from prfl_jax.aggregate.server_step import ServerStepRule

_KEY, _ARGS = "aggregation.optimizer", "aggregation.optimizer_args"


@dataclasses.dataclass(frozen=True)
class ServerOptimizer:
    """One choice of `aggregation.optimizer`.

    Attributes:
      rule: from the arguments, as `keyword_args.canonical` writes them, to the device's part; None: W becomes the
        aggregate.
      signature: a function whose keyword arguments are those of the choice; None: there are none.
      server_lr: eta where `aggregation.server_lr` is None.
      ranges: of arguments, by name.
      first: the argument that `signature` is given besides; "" for none.
    """

    rule: Callable[[str], ServerStepRule] | None = None
    signature: Callable[..., Any] | None = None
    server_lr: float = 1.0
    ranges: Mapping[str, keyword_args.Range] = dataclasses.field(default_factory=dict)
    first: str = ""

    def misfit(self, args: Mapping[str, Any]) -> str | None:
        """Why the arguments are not allowed, in words that follow "allowed is"; None: they are."""
        if self.signature is None:
            return keyword_args.NONE if args else None
        return keyword_args.misfit(self.signature, dict(args), self.first) or keyword_args.out_of_range(
            args, self.ranges
        )


def _momentum(momentum: float = 0.9) -> ServerStepRule:
    from prfl_jax.aggregate.server_step import Momentum

    return Momentum(momentum)


def _adagrad(b1: float = 0.0, tau: float = 1e-3) -> ServerStepRule:
    from prfl_jax.aggregate.server_step import Adaptive, adagrad

    return Adaptive(adagrad, b1, 0.0, tau)


def _adam(b1: float = 0.9, b2: float = 0.99, tau: float = 1e-3) -> ServerStepRule:
    from prfl_jax.aggregate.server_step import Adaptive, adam

    return Adaptive(adam, b1, b2, tau)


def _yogi(b1: float = 0.9, b2: float = 0.99, tau: float = 1e-3) -> ServerStepRule:
    from prfl_jax.aggregate.server_step import Adaptive, yogi

    return Adaptive(yogi, b1, b2, tau)


_RANGES: dict[str, keyword_args.Range] = {
    **factories.RANGES,
    "b2": (lambda v: 0 <= v <= 1, "in [0, 1]"),  # nothing is divided by 1 - b2 here
    "tau": (lambda v: 1e-15 <= v <= 1e15, "> 0 (from 1e-15 to 1e+15)"),  # float32 holds its square
}


def _built_in(make: Callable[..., ServerStepRule], server_lr: float) -> ServerOptimizer:
    return ServerOptimizer(lambda args: make(**keyword_args.parse(args)), make, server_lr, _RANGES)


def _accept(name: str, found: Any) -> ServerOptimizer:
    """A plugin: a factory of an optax transformation, or a transformation."""
    from optax import GradientTransformation

    from prfl_jax.aggregate.server_step import Optax

    if isinstance(found, GradientTransformation):
        return ServerOptimizer(lambda args: Optax(transformation=found))
    if not callable(found) or isinstance(found, type) or not factories.takes_a_rate(found):
        raise registry.wrong(f"config.{_KEY}", name, found, f"an optax.GradientTransformation, or {factories.WORDS}")
    return ServerOptimizer(lambda args: Optax(OptaxFactory(found, args)), found, first=factories.RATE)


# the choices of `aggregation.optimizer`
SERVER_OPTIMIZERS: Registry[ServerOptimizer] = Registry(
    _KEY,
    {
        "none": ServerOptimizer(),
        "sgdm": _built_in(_momentum, 1.0),
        "adagrad": _built_in(_adagrad, 0.1),
        "adam": _built_in(_adam, 0.01),
        "yogi": _built_in(_yogi, 0.01),
    },
    _accept,
)


def server_lr_in_force(name: str, given: float | None) -> float:
    """`aggregation.server_lr` of a run with this optimiser: the number that is given, else the optimiser's own."""
    if given is not None:
        return given
    known = SERVER_OPTIMIZERS.known(name)
    return ServerOptimizer.server_lr if known is None else known.server_lr


def step_rule(aggregation: Any) -> ServerStepRule | None:
    """The device's part of the optimiser that the config's group `aggregation` names; None for `none`."""
    choice = SERVER_OPTIMIZERS.find(aggregation.optimizer)
    return None if choice.rule is None else choice.rule(keyword_args.canonical(aggregation.optimizer_args))


def for_weight_rule(aggregation: Any) -> Any:
    """The group as a weight rule is to see it: with an optimiser, whose rate is eta, the aggregate is that of eta 1."""
    if SERVER_OPTIMIZERS.find(aggregation.optimizer).rule is None:
        return aggregation
    group = aggregation.copy_and_resolve_references()
    with group.unlocked():
        group.server_lr = 1.0
    return group


def arguments(flat: Mapping[str, Any]) -> None:
    """The optimiser takes its arguments; one of `CHECKS`."""
    name, text = flat[_KEY], flat[_ARGS]
    why = SERVER_OPTIMIZERS.find(name).misfit(keyword_args.parse(text))
    if why is not None:
        raise refuse(_ARGS, text, f"{why}, with {_KEY}={name!r}")

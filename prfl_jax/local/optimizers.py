"""The choices of `local.optimizer` and `local.lr_schedule`: what steps a client makes of its gradients.

`local.name` says which gradients a client computes, `local.optimizer` which steps follow from them. Nothing here
imports JAX as long as the optimiser is `sgd`; optax does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from prfl_jax import registry
from prfl_jax.local import factories
from prfl_jax.local.factories import OptaxFactory
from prfl_jax.registry import Form, Registry
from prfl_jax.system import keyword_args

if TYPE_CHECKING:
    import jax

OPTIMIZER, SCHEDULE = "local.optimizer", "local.lr_schedule"


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """One choice of `local.optimizer`.

    Attributes:
      factory: (learning_rate, **arguments) -> optax.GradientTransformation. None: SGD with `local.momentum`, as
        `local/sgd.py` has it, of whose update ((w_sent - w) / lr)^2 is a squared gradient.
      ranges: of the factory's arguments, by name; a user's function has its own.
    """

    factory: Callable[..., Any] | None = None
    ranges: Mapping[str, keyword_args.Range] = dataclasses.field(default_factory=dict)

    def with_args(self, args: str) -> OptaxFactory | None:
        """The factory with the arguments of a JSON text; None for SGD."""
        return None if self.factory is None else OptaxFactory(self.factory, keyword_args.canonical(args))


@dataclasses.dataclass(frozen=True)
class LrSchedule:
    """One choice of `local.lr_schedule`.

    Attributes:
      function: (step, steps of the round) -> what the round's learning rate is multiplied by; a plugin's is an optax
        schedule, a function of the step alone. Steps count from 0 in each round. None: 1.
      of_step_alone: whether it is not given the number of steps.
    """

    function: Callable[..., Any] | None = None
    of_step_alone: bool = False

    def factor(self, step: Any, steps: int) -> jax.Array:
        """The factor of a step, a float32 scalar."""
        import jax.numpy as jnp

        assert self.function is not None
        found = self.function(step) if self.of_step_alone else self.function(step, steps)
        return jnp.asarray(found, jnp.float32)


def _linear(step: Any, steps: int) -> Any:
    """From 1 down to 1 / steps."""
    return 1.0 - step / steps


def _cosine(step: Any, steps: int) -> Any:
    """From 1 down along half a cosine, which would reach 0 at step `steps`."""
    import jax.numpy as jnp

    return 0.5 + 0.5 * jnp.cos(jnp.pi * step / steps)


def _accept_optimizer(name: str, found: Any) -> Optimizer:
    return Optimizer(factories.accept(OPTIMIZER, name, found))


def _accept_schedule(name: str, found: Any) -> LrSchedule:
    if not callable(found) or isinstance(found, type):
        raise registry.wrong(f"config.{SCHEDULE}", name, found, "a function (step) -> a factor, as optax's schedules")
    return LrSchedule(found, of_step_alone=True)


# the choices of `local.optimizer`
OPTIMIZERS: Registry[Optimizer] = Registry(
    OPTIMIZER,
    {"sgd": Optimizer()},
    _accept_optimizer,
    forms=(
        Form(
            "the name of an optax factory that takes learning_rate (adam, adamw, lion, adagrad, yogi and more)",
            matches=lambda name: factories.of_optax(name) is not None,
            load=lambda name: Optimizer(factories.of_optax(name), factories.RANGES),
        ),
    ),
)

# the choices of `local.lr_schedule`
LR_SCHEDULES: Registry[LrSchedule] = Registry(
    SCHEDULE,
    {"constant": LrSchedule(), "linear": LrSchedule(_linear), "cosine": LrSchedule(_cosine)},
    _accept_schedule,
)

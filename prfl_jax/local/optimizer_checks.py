"""Checks that tie `local.optimizer`, its arguments and `local.lr_schedule` to other keys of a config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prfl_jax.density import prunes_by
from prfl_jax.local import factories
from prfl_jax.local.choices import LOCAL_WORKS
from prfl_jax.local.optimizers import LR_SCHEDULES, OPTIMIZER, OPTIMIZERS, SCHEDULE
from prfl_jax.registry import is_own
from prfl_jax.submodel import IMPORTANCES
from prfl_jax.system import keyword_args
from prfl_jax.system.errors import refuse

_ARGS, _STATE = "local.optimizer_args", "local.optimizer_state"


def _momentum(flat: Mapping[str, Any]) -> None:
    name, momentum = flat[OPTIMIZER], flat["local.momentum"]
    if momentum and OPTIMIZERS.find(name).factory is not None:
        raise refuse("local.momentum", momentum, f"0 with {OPTIMIZER}={name!r}, which takes its own in {_ARGS}")


def _arguments(flat: Mapping[str, Any]) -> None:
    name, text = flat[OPTIMIZER], flat[_ARGS]
    choice, args = OPTIMIZERS.find(name), keyword_args.parse(text)
    if choice.factory is None:
        if args:
            raise refuse(
                _ARGS, text, f"{keyword_args.NONE} with {OPTIMIZER}={name!r}, whose momentum is local.momentum"
            )
        return
    why = keyword_args.misfit(choice.factory, args, factories.RATE) or keyword_args.out_of_range(args, choice.ranges)
    if why is not None:
        raise refuse(_ARGS, text, f"{why}, with {OPTIMIZER}={name!r}")


def _gradient_alone(flat: Mapping[str, Any]) -> None:
    """One of optax steps by what local steps have; one from a user's file is traced when the run is made."""
    name = flat[OPTIMIZER]
    choice = OPTIMIZERS.find(name)
    if choice.factory is None or is_own(name):
        return
    from prfl_jax.local.optimizer_check import lack  # JAX is imported by optax already

    factory = choice.with_args(flat[_ARGS])
    if factory is not None and (lacks := lack(factory)):
        raise refuse(OPTIMIZER, name, f"an optimiser that steps by the gradient; this one {lacks}")


def _own_steps(name: str) -> str:
    """Why a work takes no optimiser, in words."""
    return "whose LocalWork does not say takes_optimizer=True" if is_own(name) else "which takes plain steps of SGD"


def _work(flat: Mapping[str, Any]) -> None:
    """A work that takes its own steps would not see these settings."""
    name = flat["local.name"]
    if LOCAL_WORKS.find(name).takes_optimizer:
        return
    of_sgd = {OPTIMIZER: "sgd", SCHEDULE: "constant", "local.clip_grad_norm": None}
    for key, usual in of_sgd.items():
        if flat[key] != usual:
            raise refuse(key, flat[key], f"{usual} with local.name={name!r}, {_own_steps(name)}")


def _plain_steps(flat: Mapping[str, Any]) -> None:
    """Some works are defined for plain SGD alone."""
    name, of_sgd = flat["local.name"], {"local.momentum": 0.0, "local.prox_mu": 0.0}
    if not LOCAL_WORKS.find(name).plain_steps:
        return
    for key, usual in of_sgd.items():
        if flat[key] != usual:
            raise refuse(key, flat[key], f"{usual:g} with local.name={name!r}, which is defined for plain SGD")


def _kept_moments(flat: Mapping[str, Any]) -> None:
    """Moments are kept by works whose steps have them."""
    kept, name, optimizer = flat[_STATE], flat["local.name"], flat[OPTIMIZER]
    if kept == "reset":
        return
    if not LOCAL_WORKS.find(name).takes_optimizer:
        raise refuse(_STATE, kept, f"reset with local.name={name!r}, {_own_steps(name)}")
    if LOCAL_WORKS.find(name).client_state is not None:
        raise refuse(_STATE, kept, f"reset with local.name={name!r}, whose clients keep something of their own")
    if OPTIMIZERS.find(optimizer).factory is None and not flat["local.momentum"]:
        raise refuse(_STATE, kept, f"reset with {OPTIMIZER}={optimizer!r} and local.momentum=0, which has no moments")


def _importance(flat: Mapping[str, Any]) -> None:
    """((w_sent - w) / lr)^2 is the square of a gradient only where w_sent - w is lr times a sum of gradients."""
    importance = flat["submodel.importance"]
    if not IMPORTANCES.find(importance).from_updates or not prunes_by(flat):
        return
    usual = {
        OPTIMIZER: OPTIMIZERS.find(flat[OPTIMIZER]).factory is None,
        SCHEDULE: LR_SCHEDULES.find(flat[SCHEDULE]).function is None,
        "local.name": not LOCAL_WORKS.find(flat["local.name"]).sends_beside,  # whose gradients are corrected
    }
    others = " or ".join(IMPORTANCES.with_trait(lambda one: not one.from_updates))
    for key, is_usual in usual.items():
        if not is_usual:
            why = "updates give squared gradients with plain sgd at a constant rate alone"
            words = f"{others} with {key}={flat[key]!r}: {why}"
            raise refuse("submodel.importance", importance, words)


# run by `config/validate.py`
CHECKS: tuple[Callable[[Mapping[str, Any]], None], ...] = (
    _momentum,
    _arguments,
    _gradient_alone,
    _work,
    _plain_steps,
    _kept_moments,
    _importance,
)
